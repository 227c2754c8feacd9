/* LayerNorm over the channels of each row, then ReLU, and their gradient: built and called by channel_norm.py. */
#include <math.h>
#include <stdint.h>

typedef int64_t i64;
#define IN const float *restrict
#define OUT float *restrict
#define INLINE static inline __attribute__((always_inline))
enum { BLOCK = 256 }; /* so many rows are summed in float, blocks in double */

/* The mean of a row, and 1 / its standard deviation. */
INLINE void moments(const float *row, i64 channels, float epsilon, float *mean, float *scale) {
    float sum = 0, squares = 0;
    for (i64 c = 0; c < channels; c++) sum += row[c];
    *mean = sum / channels;
    for (i64 c = 0; c < channels; c++) squares += (row[c] - *mean) * (row[c] - *mean);
    *scale = 1 / sqrtf(squares / channels + epsilon);
}

INLINE void forward(const float *x, IN weight, IN bias, float *y, i64 rows, i64 channels, float epsilon) {
    for (i64 r = 0; r < rows; r++, x += channels, y += channels) {
        float mean, scale;
        moments(x, channels, epsilon, &mean, &scale);
#pragma omp simd
        for (i64 c = 0; c < channels; c++) {
            float value = (x[c] - mean) * scale * weight[c] + bias[c];
            y[c] = value < 0 ? 0 : value; /* NaN stays NaN */
        }
    }
}

INLINE void backward(IN of_y, IN x, IN weight, IN bias, OUT of_x, OUT of_weight, OUT of_bias, i64 rows, i64 channels,
                     float epsilon) {
    for (i64 r = 0; r < rows; r++, x += channels, of_y += channels, of_x += channels) {
        float mean, scale, along = 0, across = 0;
        moments(x, channels, epsilon, &mean, &scale);
        for (i64 c = 0; c < channels; c++) {
            float normed = (x[c] - mean) * scale;
            float of_value = normed * weight[c] + bias[c] <= 0 ? 0 : of_y[c];
            of_weight[c] += of_value * normed;
            of_bias[c] += of_value;
            of_x[c] = of_value * weight[c];
            along += of_x[c];
            across += of_x[c] * normed;
        }
        along /= channels;
        across /= channels;
        for (i64 c = 0; c < channels; c++) of_x[c] = scale * (of_x[c] - along - (x[c] - mean) * scale * across);
    }
}

/* Loops over a number of channels that the compiler knows are several times as fast. */
#define WITH_CHANNELS(function, ...) \
    switch (channels) { \
    case 16: function(__VA_ARGS__, 16, epsilon); break; \
    case 32: function(__VA_ARGS__, 32, epsilon); break; \
    case 64: function(__VA_ARGS__, 64, epsilon); break; \
    default: function(__VA_ARGS__, channels, epsilon); \
    }

/* x, y: (rows, channels); y may be x. weight, bias: (channels). */
void norm_relu(const float *x, IN weight, IN bias, float *y, i64 rows, i64 channels, float epsilon, i64 threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 t = 0; t < threads; t++) {
        i64 from = rows * t / threads, to = rows * (t + 1) / threads, at = from * channels;
        WITH_CHANNELS(forward, x + at, weight, bias, y + at, to - from)
    }
}

/* of_y, x, of_x: (rows, channels). sums: (threads, 2, channels), zeros; each thread's gradients of weight and bias. */
void norm_relu_backward(IN of_y, IN x, IN weight, IN bias, OUT of_x, double *sums, i64 rows, i64 channels,
                        float epsilon, i64 threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 t = 0; t < threads; t++) {
        double *sum = sums + t * 2 * channels;
        float part[2 * channels];
        i64 to = rows * (t + 1) / threads;
        for (i64 from = rows * t / threads; from < to; from += BLOCK) {
            i64 count = to - from < BLOCK ? to - from : BLOCK, at = from * channels;
            for (i64 c = 0; c < 2 * channels; c++) part[c] = 0;
            WITH_CHANNELS(backward, of_y + at, x + at, weight, bias, of_x + at, part, part + channels, count)
            for (i64 c = 0; c < 2 * channels; c++) sum[c] += part[c];
        }
    }
}
