/* What stands between the products of a decoding step, and the products themselves where few answers are decoded:
   one call each, where the same in torch is some forty operations a layer. Built on the machine that runs it, once with
   numbers of 32 bits and once with bf16 (HALF); sums are in fp32 either way. See kernels.py. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef HALF
typedef uint16_t number;
static inline float wide(number value) {
  uint32_t bits = (uint32_t)value << 16;
  float found;
  memcpy(&found, &bits, 4);
  return found;
}
static inline number narrow(float value) { /* to nearest, ties to even; what is no number stays none */
  uint32_t bits;
  memcpy(&bits, &value, 4);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (number)rounded;
}
#else
typedef float number;
static inline float wide(number value) { return value; }
static inline number narrow(float value) { return value; }
#endif

/* e^x to a unit or two in the last place, without branches, so that a loop of it runs in vectors (Cephes' expf). */
static inline float power(float x) {
  x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  float whole = rintf(x * 1.44269504088896341f), rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  float sum = 1.9875691500e-4f;
  sum = sum * rest + 1.3981999507e-3f;
  sum = sum * rest + 8.3334519073e-3f;
  sum = sum * rest + 4.1665795894e-2f;
  sum = sum * rest + 1.6666665459e-1f;
  sum = sum * rest + 5.0000001201e-1f;
  sum = sum * rest * rest + rest + 1;
  int32_t bits = ((int32_t)whole + 127) << 23;
  float two;
  memcpy(&two, &bits, 4);
  return sum * two;
}

#define SMALL 16384 /* numbers below which a second thread costs more than it brings */

/* states [rows, width] += more, where there is more, whose rows are `stride` apart; then
   normed = states / sqrt(mean(states^2) + eps) * weight. */
void norm(number *states, const number *more, long stride, const number *weight, number *normed, long rows, long width,
          float eps, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * width > SMALL)
  for (long row = 0; row < rows; row++) {
    number *here = states + row * width;
    float squares = 0;
    if (more)
#pragma omp simd
      for (long i = 0; i < width; i++) here[i] = narrow(wide(here[i]) + wide(more[row * stride + i]));
#pragma omp simd reduction(+ : squares)
    for (long i = 0; i < width; i++) squares += wide(here[i]) * wide(here[i]);
    float scale = 1 / sqrtf(squares / width + eps);
#pragma omp simd
    for (long i = 0; i < width; i++) normed[row * width + i] = narrow(wide(here[i]) * scale * wide(weight[i]));
  }
}

/* gates [rows, 2 width], rows `stride` apart: the first half through SiLU, times the second -> out [rows, width]. */
void gate(const number *gates, long stride, number *out, long rows, long width, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * width > SMALL)
  for (long row = 0; row < rows; row++) {
    const number *first = gates + row * stride, *second = first + width;
#pragma omp simd
    for (long i = 0; i < width; i++) {
      float value = wide(first[i]);
      out[row * width + i] = narrow(value / (1 + power(-value)) * wide(second[i]));
    }
  }
}

/* One head's vector [d] as fp32: normed where it has a weight, its halves turned. */
static void turn(const number *vector, const number *weight, float eps, const number *cosine, const number *sine,
                 long d, float *turned) {
  float plain[d], scale = 1, squares = 0;
  for (long i = 0; i < d; i++) plain[i] = wide(vector[i]);
  if (weight) {
    for (long i = 0; i < d; i++) squares += plain[i] * plain[i];
    scale = 1 / sqrtf(squares / d + eps);
    for (long i = 0; i < d; i++) plain[i] *= scale * wide(weight[i]);
  }
  for (long i = 0; i < d / 2; i++) { /* the sine's first half stands with a minus */
    turned[i] = plain[i] * wide(cosine[i]) + plain[i + d / 2] * wide(sine[i]);
    turned[i + d / 2] = plain[i + d / 2] * wide(cosine[i + d / 2]) + plain[i] * wide(sine[i + d / 2]);
  }
}

/* Keys or values of a cache: [.., key heads, d, columns] and [.., key heads, columns, d]; which columns are seen. */
typedef struct {
  const number *keys, *values;
  long columns, first, end;
} Part;

static void narrow_down(Part *part, const number *bias, float blocked) {
  while (part->first < part->end && wide(bias[part->first]) <= blocked) part->first++;
  while (part->end > part->first && wide(bias[part->end - 1]) <= blocked) part->end--;
}

/* Writes a step's keys and values of each answer, and attends: mixed [rows, heads + 2 kinds, d], rows `stride` apart,
   -> out [rows, heads, d].

   own: keys [rows, kinds, d, own_columns], values [rows, kinds, own_columns, d]; this step's go to `column`.
   shared: the same of contexts, shared_columns wide, of which the first `longest` are looked at; null where each
   answer has a copy of its own. places [rows]: whose context. bias [rows * kinds, longest + own_columns].
   Returns whether memory was too short. */
int attend(const number *mixed, long stride, const number *cosine, const number *sine, const number *query_norm,
           const number *key_norm, float eps, number *own_keys, number *own_values, long own_columns, long column,
           const number *shared_keys, const number *shared_values, long shared_columns, long longest,
           const int64_t *places, const number *bias, float blocked, float scaling, number *out, long rows, long heads,
           long kinds, long d, int threads) {
  long group = heads / kinds, width = longest + own_columns;
  int failed = 0;
#pragma omp parallel num_threads(threads) if (rows * kinds * width * d > SMALL)
  {
    float *scores = malloc(sizeof(float) * group * (width + 2 * d));
    float *asked = scores + group * width, *sums = asked + group * d;
    if (!scores)
#pragma omp atomic write
      failed = 1;
#pragma omp for
    for (long item = 0; item < rows * kinds; item++) {
      if (!scores) continue;
      long row = item / kinds, kind = item % kinds;
      const number *here = mixed + row * stride, *limits = bias + item * width;
      const number *angle = cosine + row * d, *other = sine + row * d;
      number *keys = own_keys + item * d * own_columns, *values = own_values + item * d * own_columns;
      turn(here + (heads + kind) * d, key_norm, eps, angle, other, d, asked);
      for (long i = 0; i < d; i++) keys[i * own_columns + column] = narrow(asked[i]);
      memcpy(values + column * d, here + (heads + kinds + kind) * d, sizeof(number) * d);
      for (long one = 0; one < group; one++)
        turn(here + (kind * group + one) * d, query_norm, eps, angle, other, d, asked + one * d);

      long context = (places ? places[row] : 0) * kinds + kind;
      Part parts[2] = {{shared_keys ? shared_keys + context * d * shared_columns : 0,
                        shared_keys ? shared_values + context * d * shared_columns : 0, shared_columns, 0, longest},
                       {keys, values, own_columns, 0, own_columns}};
      memset(scores, 0, sizeof(float) * group * width);
      memset(sums, 0, sizeof(float) * group * d);
      for (int part = 0; part < 2; part++) {
        Part *seen = parts + part;
        narrow_down(seen, limits + part * longest, blocked);
        for (long i = 0; i < d; i++)
          for (long one = 0; one < group; one++) {
            float times = asked[one * d + i] * scaling, *score = scores + one * width + part * longest;
            const number *line = seen->keys + i * seen->columns;
#pragma omp simd
            for (long c = seen->first; c < seen->end; c++) score[c] += times * wide(line[c]);
          }
      }
      for (long one = 0; one < group; one++) {
        float *score = scores + one * width, most = -INFINITY, total = 0;
        for (int part = 0; part < 2; part++)
          for (long c = parts[part].first + part * longest; c < parts[part].end + part * longest; c++) {
            score[c] += wide(limits[c]);
            most = score[c] > most ? score[c] : most;
          }
        for (int part = 0; part < 2; part++)
#pragma omp simd reduction(+ : total)
          for (long c = parts[part].first + part * longest; c < parts[part].end + part * longest; c++)
            total += score[c] = power(score[c] - most);
        for (int part = 0; part < 2; part++)
          for (long c = parts[part].first; c < parts[part].end; c++) {
            float share = score[c + part * longest] / total, *sum = sums + one * d;
            const number *line = parts[part].values + c * d;
#pragma omp simd
            for (long i = 0; i < d; i++) sum[i] += share * wide(line[i]);
          }
        for (long i = 0; i < d; i++) out[(row * heads + kind * group + one) * d + i] = narrow(sums[one * d + i]);
      }
    }
    free(scores);
  }
  return failed;
}

#define LANES 16
typedef float vector __attribute__((vector_size(4 * LANES)));

static inline vector lanes(const number *from) {
#ifdef HALF
  typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
  typedef uint32_t wholes __attribute__((vector_size(4 * LANES)));
  halves read;
  memcpy(&read, from, sizeof read);
  return (vector)(__builtin_convertvector(read, wholes) << 16);
#else
  vector read;
  memcpy(&read, from, sizeof read);
  return read;
#endif
}

static inline vector asked_lanes(const float *from) {
  vector read;
  memcpy(&read, from, sizeof read);
  return read;
}

#define AHEAD 4096 /* bytes: a page, beyond which the processor itself does not look ahead */
#define LINE 64

/* Asks for the memory that lies so far behind a row; it may lie behind the last one, for nothing is read. */
static inline void ask_ahead(const void *row, long bytes) {
  for (long i = 0; i < bytes; i += LINE) __builtin_prefetch((const char *)row + AHEAD + i);
}

/* Four sums that need not wait for one another, along one row: memory is read as it lies, which is all the work. */
static float dot(const number *weight, const float *asked, long in) {
  vector a = {0}, b = {0}, c = {0}, d = {0};
  long i = 0;
  for (; i + 4 * LANES <= in; i += 4 * LANES) {
    a += lanes(weight + i) * asked_lanes(asked + i);
    b += lanes(weight + i + LANES) * asked_lanes(asked + i + LANES);
    c += lanes(weight + i + 2 * LANES) * asked_lanes(asked + i + 2 * LANES);
    d += lanes(weight + i + 3 * LANES) * asked_lanes(asked + i + 3 * LANES);
  }
  a = (a + b) + (c + d);
  float sum = 0;
  for (int lane = 0; lane < LANES; lane++) sum += a[lane];
  for (; i < in; i++) sum += wide(weight[i]) * asked[i];
  return sum;
}

/* states [rows, in] times weight [outs, in] transposed, plus bias [outs]: out [rows, outs], rows `stride` apart, or in
   fp32 in `exact`. Returns whether memory was too short. */
int product(const number *states, const number *weight, const number *bias, number *out, float *exact, long rows,
            long in, long outs, long stride, int threads) {
  float *asked = malloc(sizeof(float) * rows * in);
  if (!asked) return 1;
  for (long i = 0; i < rows * in; i++) asked[i] = wide(states[i]);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long one = 0; one < outs; one++) {
    ask_ahead(weight + one * in, in * sizeof(number));
    for (long row = 0; row < rows; row++) {
      float sum = dot(weight + one * in, asked + row * in, in) + (bias ? wide(bias[one]) : 0);
      if (exact)
        exact[row * stride + one] = sum;
      else
        out[row * stride + one] = narrow(sum);
    }
  }
  free(asked);
  return 0;
}

#define MIDDLE (1 << 23)
#define MOST (MIDDLE - 2) /* of a whole number's size: what its computing rounds up stays below the middle */

/* One row of states as whole numbers of 24 bits, the middle of their range added, in three bytes each, the lowest first:
   parts [3, in]. Returns what one stands for: the rounding is that of a number of 32 bits. No number where one is none. */
static float three_bytes(const number *states, uint8_t *parts, long in) {
  float most = 0;
  for (long i = 0; i < in; i++) {
    float size = fabsf(wide(states[i]));
    most = size > most || size != size ? size : most;
  }
  int is_finite = most < INFINITY;
  float times = is_finite && most > 1e-30f ? MOST / most : 0;
  for (long i = 0; i < in; i++) {
    uint32_t whole = (uint32_t)((is_finite ? (int32_t)rintf(wide(states[i]) * times) : 0) + MIDDLE);
    parts[i] = whole;
    parts[in + i] = whole >> 8;
    parts[2 * in + i] = whole >> 16;
  }
  return is_finite ? most / MOST : NAN;
}

/* The same product with a weight of 8 bits: weight [outs, in] times `scales` [outs] is meant, `sums` [outs] are those of
   its rows. Products of bytes are summed exactly, up to 2^16 of them: 64 at once where the
   processor can (VNNI), in the same loop. */
int product_of_bytes(const number *states, const int8_t *weight, const float *scales, const int32_t *sums,
                     const number *bias, number *out, float *exact, long rows, long in, long outs, int threads) {
  float *steps = malloc(sizeof(float) * rows + 3 * rows * in);
  if (!steps) return 1;
  uint8_t *parts = (uint8_t *)(steps + rows);
  for (long row = 0; row < rows; row++) steps[row] = three_bytes(states + row * in, parts + 3 * row * in, in);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long one = 0; one < outs; one++) {
    const int8_t *read = weight + one * in;
    ask_ahead(read, in);
    for (long row = 0; row < rows; row++) {
      const uint8_t *low = parts + 3 * row * in, *mid = low + in, *high = mid + in;
      int32_t a = 0, b = 0, c = 0;
      for (long i = 0; i < in; i++) {
        a += low[i] * read[i];
        b += mid[i] * read[i];
        c += high[i] * read[i];
      }
      int64_t whole = a + 256 * (int64_t)b + 65536 * ((int64_t)c - 128 * (int64_t)sums[one]);
      float sum = (float)whole * (scales[one] * steps[row]) + (bias ? wide(bias[one]) : 0);
      if (exact)
        exact[row * outs + one] = sum;
      else
        out[row * outs + one] = narrow(sum);
    }
  }
  free(steps);
  return 0;
}
