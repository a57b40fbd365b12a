/* Runs an artifact on the images of an .npy file, without Python: prints the top-1 class and the score of each image,
 * and how long one image takes. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <bitplan.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "npy.h"

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int ascending(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static size_t top_1(const float* scores, size_t classes) {
  size_t best = 0;
  for (size_t i = 1; i < classes; ++i)
    if (scores[i] > scores[best]) best = i;
  return best;
}

/* Whether the array holds images (or vectors) as the network takes them. */
static int fits(const npy_array* images, const bitplan_port* port) {
  if (images->rank != port->rank + 1) return 0;
  for (size_t axis = 0; axis < port->rank; ++axis)
    if (images->shape[axis + 1] != port->shape[axis]) return 0;
  return images->shape[0] > 0;
}

/* Image by image, as a program that waits for each result would. */
static bitplan_status run_all(bitplan_runtime* runtime, const npy_array* images, float* scores, double* seconds) {
  const size_t count = images->shape[0], size = images->bytes / count;
  const size_t classes = bitplan_output_port(runtime, 0)->elements;
  for (size_t i = 0; i < count; ++i) {
    const bitplan_input input = {(const char*)images->data + i * size, size,
                                 images->element == 1 ? BITPLAN_U8 : BITPLAN_F32};
    const bitplan_output output = {scores + i * classes, classes * sizeof *scores};
    const double before = now();
    const bitplan_status status = bitplan_run(runtime, 1, &input, 1, &output, 1);
    seconds[i] = now() - before;
    if (status != BITPLAN_OK) return status;
  }
  return BITPLAN_OK;
}

static int classify(bitplan_runtime* runtime, const npy_array* images) {
  const bitplan_info* const info = bitplan_describe(runtime);
  if (info->inputs != 1 || info->outputs != 1) {
    fprintf(stderr, "this example runs networks with one input and one output\n");
    return EXIT_FAILURE;
  }
  const bitplan_port* const input = bitplan_input_port(runtime, 0);
  if (!fits(images, input)) {
    fprintf(stderr, "the images are not [N");
    for (size_t axis = 0; axis < input->rank; ++axis) fprintf(stderr, ", %u", (unsigned)input->shape[axis]);
    fprintf(stderr, "] as the input '%s' has it\n", input->name);
    return EXIT_FAILURE;
  }
  const size_t count = images->shape[0], classes = bitplan_output_port(runtime, 0)->elements;
  float* const scores = malloc(count * classes * sizeof *scores);
  double* const seconds = malloc(count * sizeof *seconds);
  int result = EXIT_FAILURE;
  if (!scores || !seconds) {
    fprintf(stderr, "out of memory\n");
  } else if (run_all(runtime, images, scores, seconds) != BITPLAN_OK) {
    fprintf(stderr, "%s\n", bitplan_last_error());
  } else {
    for (size_t i = 0; i < count; ++i) {
      const size_t best = top_1(scores + i * classes, classes);
      printf("image %zu: class %zu, score %.9g\n", i, best, scores[i * classes + best]);
    }
    qsort(seconds, count, sizeof *seconds, ascending);
    printf("%.3f ms per image (median of %zu), %zu thread(s), %s\n", 1e3 * seconds[count / 2], count, info->threads,
           info->isa);
    result = EXIT_SUCCESS;
  }
  free(scores);
  free(seconds);
  return result;
}

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    fprintf(stderr, "usage: %s ARTIFACT IMAGES.npy [THREADS]\n", argv[0]);
    return 2;
  }
  bitplan_options options = BITPLAN_OPTIONS_INIT;
  if (argc == 4) options.threads = strtoul(argv[3], NULL, 10);
  bitplan_runtime* runtime = NULL;
  if (bitplan_load_file(argv[1], &options, &runtime) != BITPLAN_OK) {
    fprintf(stderr, "%s\n", bitplan_last_error());
    return EXIT_FAILURE;
  }
  npy_array images;
  const char* const error = npy_load(argv[2], &images);
  if (error) fprintf(stderr, "%s: %s\n", argv[2], error);
  const int result = error ? EXIT_FAILURE : classify(runtime, &images);
  free(images.data);
  bitplan_free(runtime);
  return result;
}
