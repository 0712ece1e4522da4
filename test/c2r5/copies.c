// memcpy and memmove of a few bytes, aligned and not, overlapping, of all sizes; memcpy of one's own
#include <stdio.h>
#include <string.h>
#include <stdint.h>
struct packed { char c; int i; short s; } __attribute__((packed)); struct plain { char c; int i; short s[3]; };
static uint64_t read8(const unsigned char *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static uint32_t read4(const void *p) { uint32_t v; memcpy(&v, p, sizeof v); return v; }
static void write2(unsigned char *p, unsigned v) { uint16_t h = v; memcpy(p, &h, 2); }
static float punned(uint32_t u) { float f; memcpy(&f, &u, sizeof f); return f; }
static uint64_t bits(double d) { uint64_t u; __builtin_memcpy(&u, &d, sizeof u); return u; }
static void show(const char *name, const void *p, int n) { printf("%s", name); for (int i = 0; i < n; i++) printf(" %02x", ((const unsigned char *)p)[i]); printf("\n"); }
static int order(int k) { printf("<%d>", k); return k; }
int main(void) {
  unsigned char bytes[64]; for (int i = 0; i < 64; i++) bytes[i] = i * 37 + 11;
  for (int i = 0; i < 9; i++) printf("%llx %x ", (unsigned long long)read8(bytes + i), read4(bytes + i)); printf("\n");
  write2(bytes + 3, 0xabcd); show("write2", bytes, 8); printf("%g %llx\n", punned(0x40490fdb), (unsigned long long)bits(-2.5));
  char text[16] = "abcdefghijklmno"; memmove(text + 1, text, 7); printf("%s\n", text); memmove(text, text + 2, 5); printf("%s\n", text);
  memcpy(text, "XYZ", 3); memcpy(text + 8, "12345", 6); printf("%s %s\n", text, text + 8);
  struct packed a = {1, -2, 3}, b; memcpy(&b, &a, sizeof a); memcpy(&a.i, bytes, 4); memcpy(bytes, &a.s, 2); printf("%d %d %d %x %x\n", b.c, b.i, b.s, a.i, bytes[0]);
  struct plain c = {1, 5, {7, 8, 9}}, d; memcpy(&d, &c, sizeof d); memcpy(&d.i, &c.s[1], 4); memcpy(&d.s[1], &c.i, 4); printf("%d %x %d %d %d\n", d.c, d.i, d.s[0], d.s[1], d.s[2]);
  uint64_t w[3] = {1, 2, 3}; memcpy(w + 1, w, 16); printf("%d\n", (int)w[2]); uint64_t *q = w; int n = 0; memcpy(q++, bytes, 8), n++; printf("%d %llx %d\n", (int)(q - w), (unsigned long long)w[0], n);
  memcpy(bytes + order(9), bytes + order(1), 3); show(" order", bytes + 8, 5); char *r = memcpy(text, "hi", 3); printf("%s %d\n", r, memcpy(text, bytes, 0) == text);
  uint32_t half[2] = {0x01020304, 0x05060708}; uint64_t whole; memcpy(&whole, half, 8); printf("%llx\n", (unsigned long long)whole); memcpy((char *)half + 2, &whole, 4); printf("%x %x\n", half[0], half[1]);
  return 0;
}
