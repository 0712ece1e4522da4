#include <stdio.h>
enum { N = 120 };
static double a[N][N], b[N][N], c[N][N];
int main(void) {
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) { a[i][j] = i + 2 * j; b[i][j] = i - j; }
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) {
      double sum = 0;
      for (int k = 0; k < N; k++) sum += a[i][k] * b[k][j];
      c[i][j] = sum;
    }
  double total = 0;
  for (int i = 0; i < N; i++) for (int j = 0; j < N; j++) total += c[i][j];
  printf("%g\n", total);
  return 0;
}
