// what initialisers name, how long arrays become, and where a string begins one
#include <stdio.h>
#define PRINT(x) printf("%d ", (int)sizeof(x))
struct triple { int a, b, c; };
struct triple listed[] = {{1}, {2}}, flat[] = {1, 2, 3, 4}, far[] = {[3] = {.b = 2}}, deep[] = {[1].c = 5}, blank[] = {{1}, {}};
int rows[][2] = {{1}, {}}, none[] = {}, many[] = {[2 ... 4] = 1}, cube[][2][3] = {[1] = {{1}, {2}}, {}};
char words[][3] = {"ab", "cd", ("e")}, narrow[][8] = {"a"}, indexed[][2] = {[1][0] = 'c'}, parts[] = "a\0b";
struct named { char n[4]; int k; } names[] = {"a", 1, "b", 2, {"c"}}, one = {"q", 5};
struct two { char n[2][4]; int k; } twos[] = {"ab", "cd", 5, {{"e"}, 3}};
struct { struct named in; int z; } outer[] = {"r", 7, 8, {"t", 9, 10}};
struct { const char *s; char t[3]; } mixed[] = {"longer", "xy", "other", {"z"}};
extern int declared[10]; int declared[] = {12, 34};
struct { int n; char f[]; } flexible = {1, "hello"};
int main(void) {
  PRINT(declared); PRINT(listed); PRINT(flat); PRINT(far); PRINT(deep); PRINT(blank); PRINT(rows); PRINT(none); PRINT(many); PRINT(cube);
  PRINT(words); PRINT(narrow); PRINT(indexed); PRINT(parts); PRINT(((int[][2]){{1}, {2}}));
  char first[] = {"abc"[1], 0}, copy[] = {"hello"};
  struct named local[] = {"c", 3, ("d"), 4}, cut = {"zz"[1], 'x'};
  printf("\n%s %d %s %s %d %s %d %s\n", names[1].n, names[1].k, names[2].n, one.n, one.k, local[1].n, local[1].k, cut.n);
  printf("%s %s %d %s %s %d %s %s %s %s\n", twos[0].n[0], twos[0].n[1], twos[0].k, twos[1].n[0], outer[1].in.n, outer[1].z, mixed[0].s, mixed[0].t, mixed[1].s, mixed[1].t);
  printf("%s %s %s %s\n", first, copy, words[2], flexible.f);
}
