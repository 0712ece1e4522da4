#include <stdio.h>
static int count, rows[12];
static int safe(int n, int column) {
  for (int i = 0; i < n; i++) {
    int d = rows[i] - column;
    if (d == 0 || d == n - i || d == i - n) return 0;
  }
  return 1;
}
static void place(int n, int size) {
  if (n == size) { count++; return; }
  for (int column = 0; column < size; column++)
    if (safe(n, column)) { rows[n] = column; place(n + 1, size); }
}
int main(void) {
  place(0, 9);
  printf("%d\n", count);
  return 0;
}
