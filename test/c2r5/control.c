// loops, switches, gotos, labels as values, short circuits
#include <stdio.h>
static int dense(int x) { switch (x) { case 0: return 5; case 1: return 6; case 2: case 3: return 7; case 4: return 8; case 5: return 9;
  case 7: return 10; default: return -1; } }
static int sparse(long x) { switch (x) { case -1000000: return 1; case 5 ... 9: return 2; case 100: return 3; case 1L << 40: return 4;
  case 77: x++; case 78: return (int)x; } return 0; }
static int duff(int n) { int k = 0; switch (n % 4) { case 0: do { k++; case 3: k++; case 2: k++; case 1: k++; } while ((n -= 4) > 0); } return k; }
static int machine(const char *code) {
  static void *const table[] = { &&add, &&dbl, &&end }; int acc = 1;
  goto *table[*code++ - 'a'];
add: acc += 3; goto *table[*code++ - 'a'];
dbl: acc *= 2; goto *table[*code++ - 'a'];
end: return acc;
}
static int relative(const unsigned char *code, int x) {
  static const int table[] = {&&add - &&add, &&flip - &&add, &&end - &&add};
  for (;;) {
    goto *(&&add + table[*code++]);
  add: x += 7; continue;
  flip: x ^= 5; continue;
  end: return x;
  }
}
static void *volatile kept;
static int only_asked(void) { kept = &&there; there: return kept != 0; }
static inline int collatz(int n) { void *p = n & 1 ? &&odd : &&even; goto *p; odd: return n * 3 + 1; even: return n / 2; }
static int stored(int n) { static void *t[2]; t[0] = &&zero; t[1] = &&one; if (n > 1) return -1; goto *t[n]; zero: return 8; one: return 9; }
static int side(int *n) { return ++*n; }
int main(void) {
  for (int i = -1; i < 9; i++) printf("%d ", dense(i));
  long s[] = {-1000000, 4, 5, 9, 10, 100, 1L << 40, 77, 78}; for (int i = 0; i < 9; i++) printf("%d ", sparse(s[i]));
  for (int i = 1; i < 9; i++) printf("%d ", duff(i));
  printf("%d\n", machine("abababc"));
  int steps = 0; for (int m = 27; m != 1; steps++) m = collatz(collatz(m)) == 4 ? 1 : collatz(m);
  printf("%d %d %d %d\n", relative((const unsigned char[]){0, 1, 0, 0, 1, 2}, 9), only_asked(), steps, stored(0) + stored(1) + stored(2));
  int n = 0; if (side(&n) > 5 && side(&n)) n = 100; if (side(&n) == 2 || side(&n)) n += 10; printf("%d\n", n);
  int i = 0, j; while (1) { if (++i == 3) continue; if (i > 6) break; for (j = 0; j < 3; j++) { if (j == 2) goto next; n++; } next:; }
  do { n--; if (n % 7 == 0) break; } while (n > 0); printf("%d %d\n", i, n);
  if (n) if (n < 0) n = 1; else n = 2; else n = 3;
  if (i == 1) n = 5; else if (i == 7) n = 6; else n = 7; if (i) n *= 2;
  printf("%d %d\n", n, (n, i)); int k = 5; k = k++ * 2 + (k > 3 ? k : -k); printf("%d\n", ({ int a = 3; while (a < 50) a *= 2; a; }));
  printf("%d %d\n", 0 ?: 7, 4 ?: 9); switch (3) { int unused; default: n = 1; } printf("%d\n", n);
  for (;;) { switch (n) { case 1: n = 2; continue; case 2: n = 3; break; default: goto out; } }
out: return n;
}
