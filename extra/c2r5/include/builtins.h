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
#define __builtin_isnanf(x) __builtin_isnan((float)(x))
#define __builtin_isnanl(x) __builtin_isnan((long double)(x))
#define __builtin_isinff(x) __builtin_isinf((float)(x))
#define __builtin_isinfl(x) __builtin_isinf((long double)(x))
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
#define __builtin_clrsb(x) (__builtin_clrsbl((int)(x)) - 32)
#define __builtin_clrsbll(x) __builtin_clrsbl(x)
#define __builtin_bswap16(x) ({ unsigned short __x = (x); (unsigned short)(__x << 8 | __x >> 8); })
#define __builtin_bswap32(x) ({ unsigned __x = (x); __x = (__x & 0xff00ff00u) >> 8 | (__x & 0x00ff00ffu) << 8; \
  __x >> 16 | __x << 16; })
#define __builtin_bswap64(x) ({ unsigned long __x = (x); \
  __x = (__x & 0xff00ff00ff00ff00ul) >> 8 | (__x & 0x00ff00ff00ff00fful) << 8; \
  __x = (__x & 0xffff0000ffff0000ul) >> 16 | (__x & 0x0000ffff0000fffful) << 16; __x >> 32 | __x << 32; })
/* x op y as integers, in 128 bits: the lower half is computed as unsigned long; the upper one is that of the product,
   with the signs, which are the upper halves of x and y, and what is carried. */
#define __c2r5_sign(x) (-(long)((x) < 0))
#define __c2r5_store(low, high, p) ({ __typeof__(p) __p = (p); __typeof_unqual__(*__p) __kept = (__typeof__(*__p))(low); \
  *__p = __kept; (unsigned long)__kept != (low) || __c2r5_sign(__kept) != (high); })
#define __c2r5_overflow(x, y, p, operator, high) ({ __typeof_unqual__(x) __x = (x); __typeof_unqual__(y) __y = (y); \
  unsigned long __a = __x, __b = __y, __low = __a operator __b; long __high = (high); __c2r5_store(__low, __high, p); })
static inline unsigned long __c2r5_product(unsigned long x, unsigned long y) {
  unsigned long a = x >> 32, b = x & 0xffffffff, c = y >> 32, d = y & 0xffffffff;
  unsigned long middle = a * d + (b * d >> 32), other = b * c + (middle & 0xffffffff);
  return a * c + (middle >> 32) + (other >> 32);
}
#define __builtin_add_overflow(x, y, p) \
  __c2r5_overflow(x, y, p, +, __c2r5_sign(__x) + __c2r5_sign(__y) + (__low < __a))
#define __builtin_sub_overflow(x, y, p) \
  __c2r5_overflow(x, y, p, -, __c2r5_sign(__x) - __c2r5_sign(__y) - (__a < __b))
#define __builtin_mul_overflow(x, y, p) __c2r5_overflow(x, y, p, *, \
  __c2r5_product(__a, __b) + __c2r5_sign(__x) * __b + __c2r5_sign(__y) * __a)
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
#define __builtin_prefetch(p, ...) ((void)(p))
#define __builtin_trap() (__builtin_abort(), __builtin_unreachable())

/* Instructions, if not library functions. */
void __builtin_unreachable(void);
void *__builtin_alloca(unsigned long);
void *__builtin_frame_address(unsigned);
void *__builtin_return_address(unsigned);
double __builtin_fabs(double);
float __builtin_fabsf(float);
double __builtin_sqrt(double);
float __builtin_sqrtf(float);
int __builtin_clzl(unsigned long) __asm__("__clzdi2");
int __builtin_ctzl(unsigned long) __asm__("__ctzdi2");
int __builtin_popcountl(unsigned long) __asm__("__popcountdi2");
int __builtin_ffsl(long) __asm__("__ffsdi2");
int __builtin_clrsbl(long) __asm__("__clrsbdi2");
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

/* Atomic operations: one thread's plain, volatile accesses. */
#define __sync_synchronize() ({ __asm__ volatile("" : : : "memory"); })
#define __atomic_thread_fence(order) __sync_synchronize()
#define __atomic_signal_fence(order) __sync_synchronize()
#define __atomic_is_lock_free(size, p) ((size) <= 8)
#define __atomic_always_lock_free(size, p) ((size) <= 8)
#define __c2r5_update(p, new, result) ({ volatile __typeof__(*(p)) *__p = (p); __typeof_unqual__(*(p)) __old = *__p; \
  __typeof_unqual__(*(p)) __new = (__typeof__(*(p)))(new); *__p = __new; result; })
#define __c2r5_sum(operator, v) ((unsigned long)__old operator (unsigned long)(v))
#define __sync_fetch_and_add(p, v, ...) __c2r5_update(p, __c2r5_sum(+, v), __old)
#define __sync_add_and_fetch(p, v, ...) __c2r5_update(p, __c2r5_sum(+, v), __new)
#define __atomic_fetch_add(p, v, order) __c2r5_update(p, __c2r5_sum(+, v), __old)
#define __atomic_add_fetch(p, v, order) __c2r5_update(p, __c2r5_sum(+, v), __new)
#define __sync_fetch_and_sub(p, v, ...) __c2r5_update(p, __c2r5_sum(-, v), __old)
#define __sync_sub_and_fetch(p, v, ...) __c2r5_update(p, __c2r5_sum(-, v), __new)
#define __atomic_fetch_sub(p, v, order) __c2r5_update(p, __c2r5_sum(-, v), __old)
#define __atomic_sub_fetch(p, v, order) __c2r5_update(p, __c2r5_sum(-, v), __new)
#define __sync_fetch_and_and(p, v, ...) __c2r5_update(p, __c2r5_sum(&, v), __old)
#define __sync_and_and_fetch(p, v, ...) __c2r5_update(p, __c2r5_sum(&, v), __new)
#define __atomic_fetch_and(p, v, order) __c2r5_update(p, __c2r5_sum(&, v), __old)
#define __atomic_and_fetch(p, v, order) __c2r5_update(p, __c2r5_sum(&, v), __new)
#define __sync_fetch_and_or(p, v, ...) __c2r5_update(p, __c2r5_sum(|, v), __old)
#define __sync_or_and_fetch(p, v, ...) __c2r5_update(p, __c2r5_sum(|, v), __new)
#define __atomic_fetch_or(p, v, order) __c2r5_update(p, __c2r5_sum(|, v), __old)
#define __atomic_or_fetch(p, v, order) __c2r5_update(p, __c2r5_sum(|, v), __new)
#define __sync_fetch_and_xor(p, v, ...) __c2r5_update(p, __c2r5_sum(^, v), __old)
#define __sync_xor_and_fetch(p, v, ...) __c2r5_update(p, __c2r5_sum(^, v), __new)
#define __atomic_fetch_xor(p, v, order) __c2r5_update(p, __c2r5_sum(^, v), __old)
#define __atomic_xor_fetch(p, v, order) __c2r5_update(p, __c2r5_sum(^, v), __new)
#define __sync_lock_test_and_set(p, v, ...) __c2r5_update(p, v, __old)
#define __atomic_exchange_n(p, v, order) __c2r5_update(p, v, __old)
#define __atomic_exchange(p, v, result, order) ((void)(*(result) = __c2r5_update(p, *(v), __old)))
#define __sync_lock_release(p, ...) ((void)(*(volatile __typeof__(*(p)) *)(p) = 0))
#define __atomic_store_n(p, v, order) ((void)(*(volatile __typeof__(*(p)) *)(p) = (v)))
#define __atomic_store(p, v, order) __atomic_store_n(p, *(v), order)
#define __atomic_load_n(p, order) ({ __typeof_unqual__(*(p)) __old = *(volatile __typeof__(*(p)) *)(p); __old; })
#define __atomic_load(p, result, order) ((void)(*(result) = __atomic_load_n(p, order)))
#define __atomic_test_and_set(p, order) __atomic_exchange_n((unsigned char *)(p), 1, order)
#define __atomic_clear(p, order) __atomic_store_n((unsigned char *)(p), 0, order)
#define __sync_val_compare_and_swap(p, wanted, new, ...) ({ volatile __typeof__(*(p)) *__p = (p); \
  __typeof_unqual__(*(p)) __wanted = (__typeof__(*(p)))(wanted), __new = (__typeof__(*(p)))(new), __old = *__p; \
  if (__old == __wanted) *__p = __new; __old; })
#define __sync_bool_compare_and_swap(p, wanted, new, ...) \
  ({ __typeof_unqual__(*(p)) __same = (__typeof__(*(p)))(wanted); __sync_val_compare_and_swap(p, __same, new) == __same; })
#define __atomic_compare_exchange_n(p, expected, new, weak, success, failure) ({ __typeof__(expected) __e = (expected); \
  __typeof_unqual__(*(p)) __w = *__e, __found = __sync_val_compare_and_swap(p, __w, new); \
  if (__found != __w) *__e = __found; __found == __w; })
#define __atomic_compare_exchange(p, expected, new, weak, success, failure) \
  __atomic_compare_exchange_n(p, expected, *(new), weak, success, failure)

/* Variable arguments. RISC-V: they lie in a row, eight bytes each; what is aligned to 16 begins at an even one; of what
   is larger, there is the address. x86-64: in the registers that the function saved if all of it went there, else on
   the stack; __builtin_va_class(T) has a letter for each register. */
void __c2r5_va_start(void *) __asm__("__builtin_va_start");
#define __builtin_va_end(ap) ((void)(ap))
#ifdef __riscv
typedef void *__builtin_va_list;
#define __builtin_va_start(ap, ...) __c2r5_va_start(&(ap))
#define __builtin_va_copy(to, from) ((void)((to) = (from)))
#define __builtin_va_arg(ap, T) __builtin_choose_expr(sizeof(T) > 16, **(__typeof__(T) **)(((ap) += 8) - 8), \
  __builtin_choose_expr(_Alignof(T) == 16, *(__typeof__(T) *)__c2r5_va_even(&(ap)), \
  *(__typeof__(T) *)(((ap) += (sizeof(T) + 7) / 8 * 8) - (sizeof(T) + 7) / 8 * 8)))
static inline void *__c2r5_va_even(__builtin_va_list *ap) {
  *ap = (void *)(((unsigned long)*ap + 15 & -16ul) + 16);
  return *ap - 16;
}
#else
typedef struct __va_list_tag { unsigned used[2]; void *stack, *registers; } __builtin_va_list[1];
#define __builtin_va_start(ap, ...) __c2r5_va_start(ap)
#define __builtin_va_copy(to, from) ((void)(*(to) = *(from)))
#define __builtin_va_arg(ap, T) \
  (*(__typeof__(T) *)__c2r5_va_next(ap, sizeof(T), _Alignof(T), __builtin_va_class(T), (long[2]){0}))
static void *__c2r5_va_next(struct __va_list_tag *ap, unsigned long size, unsigned long align, const char *class,
                            long *copy) {
  unsigned used[2] = {ap->used[0], ap->used[1]};
  for (int k = 0; class[k]; k++) {
    int is_float = class[k] == 'f';
    copy[k] = *(long *)(ap->registers + used[is_float]);
    used[is_float] += is_float ? 16 : 8;
  }
  if (*class && used[0] <= 48 && used[1] <= 176) {
    ap->used[0] = used[0];
    ap->used[1] = used[1];
    return copy;
  }
  char *at = ap->stack;
  if (align > 8) at = (char *)((unsigned long)at + align - 1 & -align);
  ap->stack = at + (size + 7) / 8 * 8;
  return at;
}
#endif

/* Of types. */
#define __builtin_offsetof(type, member) ((unsigned long)&((__typeof__(type) *)0)->member)
#define __builtin_types_compatible_p(a, b) \
  _Generic((__typeof_unqual__(a) *)0, __typeof_unqual__(b) *: 1, default: 0)
