// memory of variable size on the stack; a symbol that may be missing
#include <stdio.h>
int weak(void) __attribute__((weak));
static int vla(int n, int m, int a[n][m]) { int s = 0; for (int i = 0; i < n; i++) for (int j = 0; j < m; j++) s += a[i][j]; return s + (int)sizeof a[0]; }
static void measured_once(int n) {
  typedef int row[n]; typedef const row fixed; typedef int (*rows)[n]; int (*several[2])[n];
  n = 9;
  row a; volatile row b; const row *c; rows d;
  printf("%zu %zu %zu %zu %zu %zu\n", sizeof a, sizeof b, sizeof *c, sizeof(fixed), sizeof *d, sizeof *several[1]);
}
static void say(int *p) { printf("gone %d\n", *p); }
static void say_all(int (*p)[2]) { printf("gone %d %d\n", (*p)[0], (*p)[1]); }
static int out_of_scopes(int n) {                                       // a jump out of a scope cleans up in it
  int k = 0;
  { int one __attribute__((cleanup(say))) = 1; { int two __attribute__((cleanup(say))) = 2; goto sibling; }
    { int three __attribute__((cleanup(say))) = 3; if (n) goto out; three++; }
    sibling: printf("sibling %d\n", one);
    { int pair[n] __attribute__((cleanup(say_all))); pair[0] = 4; pair[1] = 5; if (n > 1) goto out; } }
out:
again: { char big[n * 1000]; big[0] = k++; if (k < 10000) goto again; }
  return k;
}
int main(void) {
  int n = 3;
  printf("%d\n", out_of_scopes(2));
  measured_once(n);
  for (int k = 1; k < 4; k++) {
    int a[k][n];
    for (int i = 0; i < k; i++) for (int j = 0; j < n; j++) a[i][j] = i + j;
    printf("%d %zu ", vla(k, n, a), sizeof a);
  }
  int (*p)[n] = __builtin_alloca(sizeof(int[4][n])); p[3][2] = 5; printf("%d %ld\n", p[3][2], (char *)&p[2] - (char *)p);
  typedef int row[n]; n = 100; row r; printf("%zu\n", sizeof r);
  for (int i = 0; i < 1000; i++) { char big[n * 1000]; big[i] = 1; if (i % 3) continue; big[0] = 2; }
  return weak ? 1 : 0;
}
