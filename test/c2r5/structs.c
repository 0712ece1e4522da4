// structures and unions: copies, parameters, results, initialisers
#include <stdio.h>
#include <stddef.h>
#include <string.h>
struct p2 { int x, y; }; struct big { long a[5]; char c; }; struct mixed { float f; int i; }; struct ff { float a, b; };
struct ddd { double a, b, c; }; struct one { char c; }; struct odd { char c[3]; }; union both { int i; float f; };
struct nested { struct p2 p[2]; union both u; struct { int in; }; };
struct empty { }; struct flex { int n; int data[]; };
struct p2 add(struct p2 a, struct p2 b) { return (struct p2){a.x + b.x, a.y + b.y}; }
struct big grow(struct big b, int k) { b.a[k] = k; b.c++; return b; }
struct mixed mix(struct mixed m) { m.f += m.i; return m; }
struct ff swap(struct ff v) { struct ff r = {v.b, v.a}; return r; }
struct ddd roll(struct ddd d) { double t = d.a; d.a = d.b; d.b = d.c; d.c = t; return d; }
struct odd bump(struct odd o) { o.c[2]++; return o; }
struct one inc(struct one o) { o.c++; return o; }
int many(int a, struct p2 b, double c, struct big d, struct ff e, long f, struct p2 g, struct p2 h, int i, union both u, struct empty z)
{ return a + b.x + (int)c + (int)d.a[1] + (int)e.b + (int)f + g.y + h.x * 100 + i + u.i; }
int grid[2][3] = {{1, 2}, {4}}; int flat[2][3] = {1, 2, 3, 4}; char words[][4] = {"ab", "xyz", "full"};
struct nested n = {{{1, 2}, [1].y = 4}, {.f = 1.0f}, {9}}; struct flex fl = {2, {10, 20}};
struct { int a[3]; struct p2 p; } des = {.p.y = 8, .a = {[1] = 5}, .a[2] = 6}; int ranged[] = {[2 ... 4] = 7, 1, [0] = 9};
struct p2 *ptr = &(struct p2){3, 4}; int *elem = &grid[1][0] + 1; const char *str = "literal" + 3; size_t off = offsetof(struct nested, u);
int main(void) {
  struct p2 a = {1, 2}, b = {.y = 20, .x = 10}, c = add(a, b); printf("%d %d %d\n", c.x, c.y, add(c, a).y);
  struct big g = {{0}}; g = grow(grow(g, 2), 4); printf("%ld %ld %d %zu\n", g.a[2], g.a[4], g.c, sizeof g);
  struct mixed m = mix((struct mixed){1.5f, 2}); struct ff f = swap((struct ff){1, 2}); struct ddd d = roll((struct ddd){1, 2, 3});
  printf("%g %d %g %g %g %g %g\n", m.f, m.i, f.a, f.b, d.a, d.b, d.c);
  printf("%d %d\n", bump((struct odd){{1, 2, 3}}).c[2], inc((struct one){7}).c);
  union both u = {5}; struct empty z; printf("%d\n", many(1, a, 3.9, g, f, 6, b, c, 9, u, z));
  printf("%d %d %d %d; %s %s %.4s %zu\n", grid[0][1], grid[1][0], flat[0][2], flat[1][0], words[0], words[1], words[2], sizeof words);
  printf("%d %d %g %d %zu\n", n.p[1].x, n.p[1].y, n.u.f, n.in, off); printf("%d %d %zu\n", fl.data[1], fl.n, sizeof fl);
  printf("%d %d %d %d; ", des.a[0], des.a[1], des.a[2], des.p.y); for (size_t i = 0; i < sizeof ranged / sizeof *ranged; i++) printf("%d ", ranged[i]);
  printf("%d %d %s\n", ptr->y, *elem, str); struct nested k = n; k.p[0] = a; n.p[0].x = 77; printf("%d %d\n", k.p[0].x, memcmp(&k.u, &n.u, sizeof k.u));
  struct p2 arr[3] = {a, b}; arr[2] = arr[1]; arr[1].x++; printf("%d %d %d\n", arr[2].x, arr[1].x, (arr + 2)->y); struct p2 *q = arr; *q++ = *(q + 2); printf("%ld\n", q - arr);
  int local[5] = {1, [3] = 4}; char s[8] = "hi", t[] = "auto"; printf("%d %d %d %s %zu %d\n", local[0], local[3], local[4], s, sizeof t, s[7]);
  struct p2 cond = a.x > 5 ? a : b; printf("%d %d\n", cond.x, (a = b).y); return 0;
}
