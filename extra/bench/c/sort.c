#include <stdio.h>
#include <stdlib.h>
static unsigned seed = 1;
static unsigned next(void) { return seed = seed * 1664525u + 1013904223u; }
static void swap(int *x, int *y) { int t = *x; *x = *y; *y = t; }
static void quicksort(int *a, int low, int high) {
  while (low < high) {
    int pivot = a[(low + high) / 2], i = low, j = high;
    while (i <= j) {
      while (a[i] < pivot) i++;
      while (a[j] > pivot) j--;
      if (i <= j) swap(&a[i++], &a[j--]);
    }
    if (j - low < high - i) { quicksort(a, low, j); low = i; }
    else { quicksort(a, i, high); high = j; }
  }
}
static void heapify(int *a, int n, int root) {
  for (;;) {
    int child = 2 * root + 1;
    if (child >= n) return;
    if (child + 1 < n && a[child + 1] > a[child]) child++;
    if (a[root] >= a[child]) return;
    swap(&a[root], &a[child]);
    root = child;
  }
}
int main(void) {
  int n = 100000;
  int *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);
  for (int i = 0; i < n; i++) a[i] = b[i] = next() >> 8;
  quicksort(a, 0, n - 1);
  for (int i = n / 2 - 1; i >= 0; i--) heapify(b, n, i);
  for (int end = n - 1; end > 0; end--) { swap(&b[0], &b[end]); heapify(b, end, 0); }
  for (int i = 0; i < n; i++) if (a[i] != b[i]) return 1;
  printf("%d %d\n", a[0], a[n / 2]);
  return 0;
}
