/* The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html */
#include "npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What follows `key` in the header, or NULL. */
static const char* value_of(const char* header, const char* key) {
  const char* const found = strstr(header, key);
  return found ? found + strlen(key) : NULL;
}

static const char* read_header(const char* header, npy_array* array) {
  const char* const type = value_of(header, "'descr': ");
  if (!type) return "its header names no type";
  if (!strncmp(type, "'|u1'", 5))
    array->element = 1;
  else if (!strncmp(type, "'<f4'", 5))
    array->element = 4;
  else
    return "its elements are neither uint8 nor float32: convert them with .astype";
  if (!value_of(header, "'fortran_order': False")) return "it is in Fortran order: save numpy.ascontiguousarray of it";
  const char* shape = value_of(header, "'shape': (");
  if (!shape) return "its header has no shape";
  array->rank = 0;
  array->bytes = array->element;
  while (*shape >= '0' && *shape <= '9') {
    if (array->rank == NPY_MAX_RANK) return "it has too many axes";
    char* end;
    const unsigned long long size = strtoull(shape, &end, 10);
    if (size > 0 && array->bytes > SIZE_MAX / 2 / size) return "it is too large";
    array->shape[array->rank++] = (size_t)size;
    array->bytes *= (size_t)size;
    for (shape = end; *shape == ',' || *shape == ' ';) ++shape;
  }
  return NULL;
}

static const char* read_file(FILE* file, npy_array* array) {
  unsigned char start[10];
  char header[4096];
  if (fread(start, 1, sizeof start, file) != sizeof start || memcmp(start, "\x93NUMPY\x01", 7) != 0)
    return "it is no .npy file of version 1";
  const size_t length = start[8] | (size_t)start[9] << 8;
  if (length >= sizeof header || fread(header, 1, length, file) != length) return "its header is damaged";
  header[length] = '\0';
  const char* const error = read_header(header, array);
  if (error) return error;
  array->data = malloc(array->bytes + 1); /* an empty array is one too */
  if (!array->data) return "it does not fit into memory";
  if (fread(array->data, 1, array->bytes, file) == array->bytes) return NULL;
  free(array->data);
  array->data = NULL;
  return "it is truncated";
}

const char* npy_load(const char* path, npy_array* array) {
  memset(array, 0, sizeof *array);
  FILE* const file = fopen(path, "rb");
  if (!file) return "it cannot be opened";
  const char* const error = read_file(file, array);
  fclose(file);
  return error;
}
