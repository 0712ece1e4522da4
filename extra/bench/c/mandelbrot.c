#include <stdio.h>
int main(void) {
  int inside = 0;
  for (int py = 0; py < 120; py++)
    for (int px = 0; px < 160; px++) {
      double x0 = px / 60.0 - 2, y0 = py / 60.0 - 1, x = 0, y = 0;
      int n = 0;
      while (x * x + y * y <= 4 && n < 100) {
        double t = x * x - y * y + x0;
        y = 2 * x * y + y0;
        x = t;
        n++;
      }
      inside += n == 100;
    }
  printf("%d\n", inside);
  return 0;
}
