/* Reads arrays of bytes and floats from .npy files (numpy.save). */
#ifndef NPY_H
#define NPY_H

#include <stddef.h>
#include <stdint.h>

#define NPY_MAX_RANK 8

typedef struct npy_array {
  void* data; /* to be freed by the caller */
  size_t bytes;
  size_t element; /* bytes of one: 1 for uint8, 4 for float32 */
  size_t rank;
  size_t shape[NPY_MAX_RANK];
} npy_array;

/* Returns NULL, or what is wrong with the file. */
const char* npy_load(const char* path, npy_array* array);

#endif
