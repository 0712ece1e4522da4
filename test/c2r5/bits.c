// bit-fields: reading, writing, promotion, packing
#include <stdio.h>
#include <string.h>
struct S { volatile unsigned f0:15; signed f1:8; signed f2:10; volatile unsigned f3:14; const unsigned f4:5; unsigned f5:8; };
struct T { unsigned a:5; int b:7; unsigned long c:33; unsigned d:32; _Bool e:1; } t;
#pragma pack(push, 1)
struct P { char c; unsigned a:13; int b:20; short s; unsigned long w:61; long long q; double d; } p;
#pragma pack(pop)
struct __attribute__((packed)) Q { char c; int i; float f; struct { short x, y; } in; } q = {1, 2, 3.5f, {4, 5}};
struct __attribute__((packed)) L { char c; long double d; } wide = {1, 2.5L};
struct Z { int a:3; int :0; int b:4; int :5; char c; } z = {-1, 7, 'c'};
union U { struct { unsigned lo:4, hi:4; }; unsigned char byte; } u = {.byte = 0xa5};
static struct S all[2] = {{1,-2,3,4,5,6},{7,-128,511,16383,31,255}};
#pragma pack(push, 1)
struct tight { unsigned x : 12; unsigned char y : 7; unsigned z : 28, a : 4, b : 5; };
struct tighter { int x : 12; char y : 6; long long z : 63; __attribute__((aligned(16))) char a : 4; long long b : 2; __attribute__((aligned(8))) int c; };
#pragma pack(pop)
static struct tight tight = {0x333, 0x44, 0x555555, 6, 7}; static struct tighter tighter = {3, 30, 0x123456789abcdef0, 5, 1, 9};
int main(void) {
  printf("%d %d %d %d\n", (t.a = 3) - 5 < 0, (t.a += 3) - 25 < 0, t.a++ - 25 < 0, t.d - 25 < 0);
  printf("%d %d\n", (t.b = 100), t.e = 4);
  for (int i = 0; i < 2; i++)
    printf("%d %d %d %d %d %d\n", all[i].f0, all[i].f1, all[i].f2, all[i].f3, all[i].f4, all[i].f5);
  struct S l = all[0];
  l.f1 ^= 0x55; l.f2 |= 0x300; l.f3--; l.f5 = l.f0 = -1; l.f1++;
  printf("%d %d %d %d %d %d %zu\n", l.f0, l.f1, l.f2, l.f3, l.f4, l.f5, sizeof l);
  t.c = 0x1ffffffffUL; printf("%lx\n", (unsigned long)t.c); t.c++; printf("%lx\n", (unsigned long)t.c);
  p.a = 5000; p.b = -300000; p.s = -7; p.w = 0x123456789abcdefUL; p.q = -5; p.d = 2.25; p.c = 'x';
  printf("%d %d %d %lx %lld %g %c %zu\n", p.a, p.b, p.s, (unsigned long)p.w, p.q, p.d, p.c, sizeof p);
  q.i += 40; q.f *= 2; q.in.y++; printf("%d %d %g %d %d %zu\n", q.c, q.i, q.f, q.in.x, q.in.y, sizeof q);
  printf("%d %d %c %zu; %x %x\n", z.a, z.b, z.c, sizeof z, u.lo, u.hi);
  printf("%zu %zu ", sizeof tight, sizeof tighter);
  for (unsigned k = 0; k < sizeof tight; k++) printf("%02x", ((unsigned char *)&tight)[k]);
  for (unsigned k = 0; k < sizeof tighter; k++) printf(" %02x" + (k > 0), ((unsigned char *)&tighter)[k]);
  printf("\n");
  volatile struct L m = {3, 4.5L}; wide.d += m.d; m.d = wide.d * 2; printf("%d %d %Lf %Lf\n", wide.c, m.c, wide.d, m.d);
  u.hi = 3; printf("%x\n", u.byte);
  return 0;
}
