/* Runs bitplan artifacts. C99; also valid C++.
 *
 *   bitplan_runtime* runtime = NULL;
 *   if (bitplan_load_file("network.bitplan", NULL, &runtime) != BITPLAN_OK) { puts(bitplan_last_error()); return 1; }
 *   const bitplan_input image = {pixels, sizeof pixels, BITPLAN_U8};
 *   const bitplan_output logits = {scores, sizeof scores};
 *   if (bitplan_run(runtime, 1, &image, 1, &logits, 1) != BITPLAN_OK) puts(bitplan_last_error());
 *   bitplan_free(runtime);
 *
 * Errors: a function that can fail returns a status, or NULL where it returns a pointer; bitplan_last_error() then has
 * the text, kept for each thread as XGBoost, LightGBM and TVM do it. A status object as in ONNX Runtime would have to
 * be freed on every path, and loading has no handle yet that could hold a text.
 *
 * Ownership: the caller owns what it passes in, and the library keeps none of it after the call. The library owns what
 * it returns: everything of a runtime lives until bitplan_free of that runtime.
 *
 * Threads: all functions may be called from any thread, and bitplan_run on one runtime from several at once (each call
 * then has activations and worker threads of its own). bitplan_free must come after all other calls with that runtime.
 * Do not fork() while another thread is inside the library; after that a child may use what its parent loaded.
 *
 * Sizes are in bytes unless said otherwise. Numbers are little-endian and IEEE 754, as on the machine. */
#ifndef BITPLAN_H
#define BITPLAN_H

#include <stddef.h>
#include <stdint.h>

/* Raised by every addition. What a version has stays in the later ones: a program compiled against version v runs with
 * every library whose bitplan_api_version() is v or more. */
#define BITPLAN_API_VERSION 1

#ifndef BITPLAN_API
#if defined(__GNUC__)
#define BITPLAN_API __attribute__((visibility("default")))
#else
#define BITPLAN_API
#endif
#endif

#ifdef __cplusplus
#define BITPLAN_NOEXCEPT noexcept
extern "C" {
#else
#define BITPLAN_NOEXCEPT
#endif

typedef enum bitplan_status {
  BITPLAN_OK = 0,
  BITPLAN_ERROR_ARGUMENT = 1, /* a pointer is NULL, an index too large, a struct of an impossible size */
  BITPLAN_ERROR_OPTION = 2,   /* the options cannot be meant: unknown ISA level, impossible number of threads */
  BITPLAN_ERROR_SYSTEM = 3,   /* the system refused: the file cannot be read */
  BITPLAN_ERROR_FORMAT = 4,   /* the file is damaged, of an unknown version, or no artifact */
  BITPLAN_ERROR_INPUT = 5,    /* the arrays of a call do not fit the network, or the batch is not one planned for */
  BITPLAN_ERROR_MEMORY = 6,   /* out of memory */
  BITPLAN_ERROR_INTERNAL = 7  /* an error in this library: please report it */
} bitplan_status;

/* A loaded artifact, ready to run. */
typedef struct bitplan_runtime bitplan_runtime;

/* How to run. A field that is 0 means its default, so that a struct set to zero but for `size` means all defaults.
 * Later versions may add fields at the end; `size` tells which the caller knows. */
typedef struct bitplan_options {
  size_t size;     /* sizeof(bitplan_options) */
  size_t threads;  /* that share one call, the calling one included: 1 to 256; default 1 */
  const char* isa; /* ISA level, say "avx2"; default: the variable BITPLAN_ISA, or the best of this machine */
} bitplan_options;

#define BITPLAN_OPTIONS_INIT {sizeof(bitplan_options), 0, NULL}

/* An input or an output. Later versions may add fields at the end of it and of bitplan_info. */
typedef struct bitplan_port {
  const char* name;      /* UTF-8 */
  const uint32_t* shape; /* [rank], without the batch: images are (channels, height, width) */
  size_t rank;
  size_t elements; /* of one image: the product of the shape */
} bitplan_port;

typedef struct bitplan_info {
  size_t inputs, outputs;     /* how many there are */
  size_t planned_batch;       /* the largest batch, in images */
  size_t threads;             /* as asked for */
  const char* isa;            /* the ISA level that runs */
  size_t weight_bytes;        /* of all layers, as they stay in memory */
  size_t arena_bytes;         /* activations of one image */
  const uint8_t* policy_hash; /* [32], SHA-256 of the policy that the artifact carries out */
  /* Preprocessing of images: bitplan_run computes (x - mean) / std by itself. Resizing the shorter side and cropping
   * the centre, in pixels (0: not asked for), are up to the caller. */
  size_t channels;   /* entries of mean and std; 0: inputs are taken as they are */
  const float* mean; /* on the scale of the raw input, 0 to 255 for bytes */
  const float* std;
  uint32_t resize, crop;
} bitplan_info;

/* The type of the elements of an input. */
enum {
  BITPLAN_U8 = 1, /* uint8_t */
  BITPLAN_F32 = 2 /* float */
};

/* The caller's arrays: [batch][shape of the port], contiguous. `bytes` must be exactly what that takes.
 * These two are passed as arrays, so they never change. */
typedef struct bitplan_input {
  const void* data; /* aligned for its type */
  size_t bytes;
  uint32_t type; /* BITPLAN_U8 or BITPLAN_F32, on the same scale */
} bitplan_input;

typedef struct bitplan_output {
  float* data;
  size_t bytes;
} bitplan_output;

/* BITPLAN_API_VERSION of the library. */
BITPLAN_API uint32_t bitplan_api_version(void) BITPLAN_NOEXCEPT;

/* Why the last call of this thread that failed did so, one line of UTF-8; "" if none has. Never NULL; valid until
 * the next call of this thread into the library. */
BITPLAN_API const char* bitplan_last_error(void) BITPLAN_NOEXCEPT;

/* Loads an artifact into *runtime, to be freed with bitplan_free; after an error *runtime is NULL. `options` may be
 * NULL: all defaults. The file, or the memory, is not needed any more afterwards. */
BITPLAN_API bitplan_status bitplan_load_file(const char* path, const bitplan_options* options,
                                             bitplan_runtime** runtime) BITPLAN_NOEXCEPT;
BITPLAN_API bitplan_status bitplan_load_memory(const void* data, size_t bytes, const bitplan_options* options,
                                               bitplan_runtime** runtime) BITPLAN_NOEXCEPT;

/* NULL is allowed. */
BITPLAN_API void bitplan_free(bitplan_runtime* runtime) BITPLAN_NOEXCEPT;

/* NULL (and a text) where `runtime` is NULL or `index` is not below the number in bitplan_info. */
BITPLAN_API const bitplan_info* bitplan_describe(const bitplan_runtime* runtime) BITPLAN_NOEXCEPT;
BITPLAN_API const bitplan_port* bitplan_input_port(const bitplan_runtime* runtime, size_t index) BITPLAN_NOEXCEPT;
BITPLAN_API const bitplan_port* bitplan_output_port(const bitplan_runtime* runtime, size_t index) BITPLAN_NOEXCEPT;

/* Runs `batch` images (1 to planned_batch). Inputs and outputs are in the order of the ports and all must be given.
 * The first call allocates what it needs, later ones do not. After an error the outputs are as they were. */
BITPLAN_API bitplan_status bitplan_run(bitplan_runtime* runtime, size_t batch, const bitplan_input* inputs,
                                       size_t input_count, const bitplan_output* outputs,
                                       size_t output_count) BITPLAN_NOEXCEPT;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* BITPLAN_H */
