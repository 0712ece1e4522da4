// strings, wide strings, characters, static data with addresses
#include <stdio.h>
#include <string.h>
#include <wchar.h>
#include <setjmp.h>
#include <stdlib.h>
static const char *names[] = {"zero", "one", [3] = "three"}; static int counter(void) { static int n = 10; return n++; }
static int (*const ops[])(int, int); static int plus(int a, int b) { return a + b; } static int minus(int a, int b) { return a - b; }
static int (*const ops[])(int, int) = {plus, minus, &plus}; struct list { struct list *next; int v; } first, second = {&first, 2}; struct list first = {&second, 1};
wchar_t wide[] = L"wide \u20ac"; unsigned short sixteen[] = u"\U0001F600"; char utf8[] = u8"\u00e9"; long diff = (char *)&second.v - (char *)&second; int tentative; int tentative; extern int tentative;
static jmp_buf env; static void thrower(int n) { if (n == 0) longjmp(env, 7); thrower(n - 1); } static int cmp(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
char *const volatile deep[2] = {"x", "y"}; typedef int fn(int, int); fn *chosen = minus; fn plus, minus; char esc[] = "\a\b\0\x41\101\"\\?" "1";
int main(void) {
  printf("%s %s %p %d\n", names[0], names[3], (void *)names[2], counter() + counter() * 100); printf("%d %d %d\n", ops[0](3, 4), (*ops[1])(3, 4), (**ops[2])(1, 1));
  printf("%d %d %ld\n", first.next->v, second.next->next->v, diff); printf("%zu %d %zu %x %x %zu\n", wcslen(wide), wide[5], sizeof sixteen, sixteen[0], sixteen[1], sizeof utf8);
  printf("%d %d %c %c %zu\n", esc[0], esc[2], esc[3], esc[4], sizeof esc); volatile int v = 1; int r = setjmp(env); if (!r) { v = 2; thrower(3); } printf("%d %d\n", r, v);
  int a[] = {5, 3, 9, 1}; qsort(a, 4, sizeof *a, cmp); for (int i = 0; i < 4; i++) printf("%d ", a[i]); char buf[20]; strcpy(buf, "abc"); strcat(buf, "def"); printf("%s %zu %c %d\n", buf, strlen(buf), "index"[2], *"s");
  printf("%d %s %d\n", chosen(9, 4), deep[1], tentative); char *s = buf; while (*s) { if (*s >= 'a' && *s <= 'z') *s -= 32; s++; } puts(buf); printf("%s\n", __FILE__ ? "file" : ""); printf("%d\n", (int)(&a[3] - a));
  printf("%d %d\n", "\xfff"[0] & 255, (unsigned char)'\x1fe'); return a[0] == 1 ? 3 : 4;
}
