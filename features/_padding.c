/* Rows to a padded batch with non-temporal stores; called by features/padding_kernel.py.

   A batch that exceeds the processor's caches is bound by memory traffic. An ordinary store fetches
   the line that it is going to overwrite; a non-temporal one writes whole lines straight to memory.

   A plain library without Python's headers, so that a compiler is all that is needed. It checks
   nothing: the caller does.

   Legend: B rows, `width` bytes from one row of the target to the next. */

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define SHARED __declspec(dllexport)
#else
#define SHARED __attribute__((visibility("default")))
#endif

/* Raised whenever a signature or the meaning of an argument changes. */
SHARED int heronry_padding_version(void) { return 1; }

#if defined(__x86_64__) && defined(__GNUC__)

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

#define VECTOR __attribute__((target("avx,f16c")))
#define INLINE VECTOR static inline __attribute__((always_inline))

enum {
    LINE = 64,       /* bytes of a cache line */
    STEP = 2 * LINE, /* bytes of the target that are written to one lane before the next */
    /* Parts of a row that are copied side by side. Rows lie in pages of 4 KiB, at the end of which
       the hardware stops reading ahead; more places at once keep more lines on their way. */
    LANES = 4,
};

SHARED int heronry_padding_runs_here(void) {
    unsigned a, b, c, d;
    /* The builtin also asks whether the operating system keeps the wide registers. */
    return __builtin_cpu_supports("avx") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}

/* `count` bytes of the target, a multiple of 32 and at an address that is one. */
INLINE void stream(const uint8_t *source, uint8_t *target, size_t count, int widen) {
    for (size_t i = 0; i < count; i += 32) {
        __m256i values =
            widen ? _mm256_castps_si256(
                        _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(source + i / 2))))
                  : _mm256_loadu_si256((const __m256i *)(source + i));
        _mm256_stream_si256((__m256i *)(target + i), values);
    }
}

/* The same for the ends of a row, at any address, by ordinary stores. */
INLINE void store(const uint8_t *source, uint8_t *target, size_t count, int widen) {
    if (!widen) {
        memcpy(target, source, count);
        return;
    }
    for (size_t i = 0; i < count; i += 4) {
        uint16_t half;
        memcpy(&half, source + i / 2, 2); /* shards may hold them at odd addresses */
        float value = _cvtsh_ss(half);
        memcpy(target + i, &value, 4);
    }
}

/* Bytes up to the next line, `count` at most. */
static size_t before_line(const uint8_t *target, size_t count) {
    size_t head = -(uintptr_t)target % LINE;
    return head < count ? head : count;
}

INLINE void copy(const uint8_t *source, uint8_t *target, size_t count, int widen) {
    const size_t ratio = widen ? 2 : 1;
    size_t head = before_line(target, count);
    store(source, target, head, widen);
    source += head / ratio, target += head, count -= head;

    size_t lane = count / (LANES * STEP) * STEP;
    for (size_t i = 0; i < lane; i += STEP)
        for (size_t at = i; at < LANES * lane; at += lane)
            stream(source + at / ratio, target + at, STEP, widen);
    size_t done = LANES * lane, lines = (count - done) / LINE * LINE;
    stream(source + done / ratio, target + done, lines, widen);
    done += lines;
    store(source + done / ratio, target + done, count - done, widen);
}

VECTOR static void clear(uint8_t *target, size_t count) {
    size_t head = before_line(target, count), lines = (count - head) / LINE * LINE;
    memset(target, 0, head);
    for (size_t i = head; i < head + lines; i += 32)
        _mm256_stream_si256((__m256i *)(target + i), _mm256_setzero_si256());
    memset(target + head + lines, 0, count - head - lines);
}

INLINE void fill(size_t rows, const uint64_t *sources, const uint64_t *lengths, uint8_t *target,
                 size_t width, int widen) {
    for (size_t row = 0; row < rows; row++, target += width) {
        size_t count = lengths[row] * (widen ? 2 : 1);
        copy((const uint8_t *)(uintptr_t)sources[row], target, count, widen);
        clear(target + count, width - count);
    }
    _mm_sfence(); /* before any other thread is told that the batch is there */
}

/* Copy B rows to the beginnings of those of a target, and clear what follows them.

   sources: addresses of the rows, of any alignment. lengths: bytes of each. */
SHARED VECTOR void heronry_padding_copy(size_t rows, const uint64_t *sources,
                                        const uint64_t *lengths, uint8_t *target, size_t width) {
    fill(rows, sources, lengths, target, width, 0);
}

/* The same from float16 to float32, whose target is aligned to 4 bytes. */
SHARED VECTOR void heronry_padding_widen(size_t rows, const uint64_t *sources,
                                         const uint64_t *lengths, uint8_t *target, size_t width) {
    fill(rows, sources, lengths, target, width, 1);
}

#else /* another processor or compiler: torch's and numpy's loops do it */

SHARED int heronry_padding_runs_here(void) { return 0; }

#endif
