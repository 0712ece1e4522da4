/* What every C compiler knows without being told: library functions under the names that start with __builtin_, and
   builtins that are expressions of others. Read before every program. */
#define __builtin_expect(x, y) ((long)(x))
#define __builtin_expect_with_probability(x, y, p) ((long)(x))
#define __builtin_assume_aligned(p, ...) ((void *)(p))
#define __builtin_object_size(p, n) ((n) & 2 ? 0UL : ~0UL)
#define __builtin_huge_val() 1e99999
#define __builtin_huge_valf() 1e99999f
#define __builtin_huge_vall() 1e99999L
#define __builtin_inf() 1e99999
#define __builtin_inff() 1e99999f
#define __builtin_infl() 1e99999L
#define __builtin_nan(s) (0.0 / 0.0)
#define __builtin_nanf(s) (0.0f / 0.0f)
#define __builtin_nanl(s) (0.0L / 0.0L)
#define __builtin_nans(s) (0.0 / 0.0)
#define __builtin_isnan(x) ({ __typeof__(x) __x = (x); __x != __x; })
#define __builtin_isinf(x) ({ __typeof__(x) __x = (x); __x == 1e99999L || __x == -1e99999L; })
#define __builtin_isinf_sign(x) ({ __typeof__(x) __x = (x); __x == 1e99999L ? 1 : __x == -1e99999L ? -1 : 0; })
#define __builtin_isfinite(x) ({ __typeof__(x) __x = (x); __x - __x == 0; })
#define __builtin_isnormal(x) ({ __typeof__(x) __x = (x); __typeof__(x) __a = __x < 0 ? -__x : __x; \
  __a >= (sizeof __x == 4 ? __FLT_MIN__ : __DBL_MIN__) && __x - __x == 0; })
#define __builtin_isgreater(x, y) ((x) > (y))
#define __builtin_isgreaterequal(x, y) ((x) >= (y))
#define __builtin_isless(x, y) ((x) < (y))
#define __builtin_islessequal(x, y) ((x) <= (y))
#define __builtin_islessgreater(x, y) ((x) < (y) || (x) > (y))
#define __builtin_isunordered(x, y) ({ __typeof__(x) __x = (x); __typeof__(y) __y = (y); __x != __x || __y != __y; })
#define __builtin_fpclassify(n, i, m, s, z, x) ({ __typeof__(x) __f = (x); __f != __f ? (n) : __f - __f != 0 ? (i) : \
  __f == 0 ? (z) : __builtin_isnormal(__f) ? (m) : (s); })
#define __builtin_signbit(x) (sizeof(x) == 4 ? __builtin_signbitf(x) : __builtin_signbitd(x))
#define __builtin_clz(x) (__builtin_clzl((unsigned)(x)) - 32)
#define __builtin_ctz(x) __builtin_ctzl((unsigned)(x))
#define __builtin_popcount(x) __builtin_popcountl((unsigned)(x))
#define __builtin_parity(x) (__builtin_popcount(x) & 1)
#define __builtin_clzll(x) __builtin_clzl(x)
#define __builtin_ctzll(x) __builtin_ctzl(x)
#define __builtin_popcountll(x) __builtin_popcountl(x)
#define __builtin_parityl(x) (__builtin_popcountl(x) & 1)
#define __builtin_parityll(x) (__builtin_popcountl(x) & 1)
#define __builtin_ffs(x) __builtin_ffsl((int)(x))
#define __builtin_ffsll(x) __builtin_ffsl(x)
#define __builtin_bswap16(x) ({ unsigned short __x = (x); (unsigned short)(__x << 8 | __x >> 8); })
#define __builtin_bswap32(x) ({ unsigned __x = (x); __x = (__x & 0xff00ff00u) >> 8 | (__x & 0x00ff00ffu) << 8; \
  __x >> 16 | __x << 16; })
#define __builtin_bswap64(x) ({ unsigned long __x = (x); \
  __x = (__x & 0xff00ff00ff00ff00ul) >> 8 | (__x & 0x00ff00ff00ff00fful) << 8; \
  __x = (__x & 0xffff0000ffff0000ul) >> 16 | (__x & 0x0000ffff0000fffful) << 16; __x >> 32 | __x << 32; })
#define __builtin_sadd_overflow __builtin_add_overflow
#define __builtin_saddl_overflow __builtin_add_overflow
#define __builtin_saddll_overflow __builtin_add_overflow
#define __builtin_uadd_overflow __builtin_add_overflow
#define __builtin_uaddl_overflow __builtin_add_overflow
#define __builtin_uaddll_overflow __builtin_add_overflow
#define __builtin_smul_overflow __builtin_mul_overflow
#define __builtin_smull_overflow __builtin_mul_overflow
#define __builtin_umul_overflow __builtin_mul_overflow
#define __builtin_umull_overflow __builtin_mul_overflow
#define __builtin_ssub_overflow __builtin_sub_overflow
#define __builtin_usub_overflow __builtin_sub_overflow
#define __builtin_alloca_with_align(n, a) __builtin_alloca(n)
#define __builtin___clear_cache(a, b) ((void)0)
#define __builtin_extract_return_addr(p) (p)
#define __builtin_LINE() __LINE__
#define __builtin_FILE() __FILE__
int __builtin_clzl(unsigned long) __asm__("__clzdi2");
int __builtin_ctzl(unsigned long) __asm__("__ctzdi2");
int __builtin_popcountl(unsigned long) __asm__("__popcountdi2");
int __builtin_ffsl(long) __asm__("__ffsdi2");
int __builtin_signbitf(float) __asm__("__signbitf");
int __builtin_signbitd(double) __asm__("__signbit");
void *__builtin_memcpy(void *, const void *, unsigned long) __asm__("memcpy");
void *__builtin_memmove(void *, const void *, unsigned long) __asm__("memmove");
void *__builtin_memset(void *, int, unsigned long) __asm__("memset");
int __builtin_memcmp(const void *, const void *, unsigned long) __asm__("memcmp");
void *__builtin_memchr(const void *, int, unsigned long) __asm__("memchr");
unsigned long __builtin_strlen(const char *) __asm__("strlen");
int __builtin_strcmp(const char *, const char *) __asm__("strcmp");
int __builtin_strncmp(const char *, const char *, unsigned long) __asm__("strncmp");
char *__builtin_strcpy(char *, const char *) __asm__("strcpy");
char *__builtin_strncpy(char *, const char *, unsigned long) __asm__("strncpy");
char *__builtin_strcat(char *, const char *) __asm__("strcat");
char *__builtin_strchr(const char *, int) __asm__("strchr");
char *__builtin_strrchr(const char *, int) __asm__("strrchr");
char *__builtin_strstr(const char *, const char *) __asm__("strstr");
char *__builtin_strdup(const char *) __asm__("strdup");
void *__builtin_malloc(unsigned long) __asm__("malloc");
void *__builtin_calloc(unsigned long, unsigned long) __asm__("calloc");
void *__builtin_realloc(void *, unsigned long) __asm__("realloc");
void __builtin_free(void *) __asm__("free");
void __builtin_abort(void) __asm__("abort");
void __builtin_exit(int) __asm__("exit");
int __builtin_printf(const char *, ...) __asm__("printf");
int __builtin_sprintf(char *, const char *, ...) __asm__("sprintf");
int __builtin_snprintf(char *, unsigned long, const char *, ...) __asm__("snprintf");
int __builtin_puts(const char *) __asm__("puts");
int __builtin_putchar(int) __asm__("putchar");
int __builtin_abs(int) __asm__("abs");
long __builtin_labs(long) __asm__("labs");
double __builtin_floor(double) __asm__("floor");
double __builtin_ceil(double) __asm__("ceil");
double __builtin_pow(double, double) __asm__("pow");
double __builtin_sin(double) __asm__("sin");
double __builtin_cos(double) __asm__("cos");
double __builtin_exp(double) __asm__("exp");
double __builtin_log(double) __asm__("log");
double __builtin_fmod(double, double) __asm__("fmod");
double __builtin_copysign(double, double) __asm__("copysign");
float __builtin_copysignf(float, float) __asm__("copysignf");
long double __builtin_copysignl(long double, long double) __asm__("copysignl");
long double __builtin_fabsl(long double) __asm__("fabsl");
