/* What the frame and the linker must know: stack memory of variable size, arguments beyond the registers, objects of
   each thread, weak names, objects without bytes in the file, tables of jumps. */
#include <alloca.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

_Thread_local int counter = 5;
static _Thread_local char scratch[100];
static _Thread_local int *where = 0;
char large[1 << 20];
static long zeros[1000];
extern int missing(int) __attribute__((weak));
__attribute__((weak)) int present(int x) { return x + 1; }
int original(int x) { return x * 3; }
int other(int) __attribute__((alias("original")));
int object = 77;
extern int same __attribute__((alias("object")));

static long sum_after_ten(int a, int b, int c, int d, int e, int f, int g, int h, int i, int j, ...) {
  va_list list;
  long total = a + b + c + d + e + f + g + h + i + j;
  va_start(list, j);
  for (int k = 0; k < 4; k++) total = total * 7 + va_arg(list, int);
  total += (long)va_arg(list, double);
  va_end(list);
  return total;
}

static double after_floats(double a, float b, double c, double d, double e, double f, double g, double h, double i,
                           double j, const char *format, ...) {
  va_list list;
  va_start(list, format);
  double total = a + b + c + d + e + f + g + h + i + j + va_arg(list, double) * va_arg(list, int);
  va_end(list);
  return total;
}

static int stacked(int n) {
  int total = 0;
  for (int k = 1; k <= n; k++) {
    char *p = alloca(k * 3);
    memset(p, k, k * 3);
    total += p[0] + p[k * 3 - 1];
    total += sum_after_ten(k, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 2.0) & 7;
  }
  return total;
}

static long arrays(int n, int m) {
  long total = 0;
  for (int round = 0; round < 1000; round++) {
    long a[n][m];
    for (int i = 0; i < n; i++) for (int j = 0; j < m; j++) a[i][j] = i * j + round;
    if (round % 3 == 0) continue;
    total += a[n - 1][m - 1] + sizeof a;
  }
  return total;
}

static const char *name(int k) {
  switch (k) {
    case 0: return "zero";
    case 1: return "one";
    case 2: return "two";
    case 3: case 4: case 5: return "some";
    case 9: return "nine";
    default: return "other";
  }
}

static int interpret(const char *code) {
  static void *table[] = {&&add, &&twice, &&less, &&end, &&add};
  int value = 0;
next:
  goto *table[*code++ - '0'];
add: value += 1; goto next;
twice: value *= 2; goto next;
less: value -= 3; goto next;
end: return value;
}

__attribute__((noinline)) static int by_two_names(void) { object = 5; same = 6; return object; }
int main(void) { { int before = object; printf("%d\n", by_two_names()); object = before; }
  counter += 2;
  where = &counter;
  strcpy(scratch, "mine");
  printf("%d %d %s %d\n", counter, *where, scratch, missing != 0);
  if (missing) return missing(1);
  printf("%d %d %d %d\n", present(1), other(5), same, large[12345] + (int)zeros[7]);
  printf("%ld %g\n", sum_after_ten(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 3.7),
         after_floats(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, "", 2.5, 3));
  printf("%d %ld\n", stacked(40), arrays(7, 9));
  for (int k = -1; k < 12; k++) printf("%s ", name(k));
  printf("\n%d %d\n", interpret("01102043"), __builtin_frame_address(0) != 0);
  return 0;
}
