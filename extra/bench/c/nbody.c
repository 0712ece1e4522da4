#include <math.h>
#include <stdio.h>
struct body { double x, y, z, vx, vy, vz, mass; };
static struct body bodies[5] = {
  {0, 0, 0, 0, 0, 0, 39.47}, {4.84, -1.16, -.10, .606, 2.81, -.02, .037}, {8.34, 4.12, -.4, -1.01, 1.82, .008, .011},
  {12.89, -15.11, -.22, 1.08, .868, -.01, .0017}, {15.37, -25.9, .179, .979, .594, -.034, .002}};
static void advance(int n, double dt) {
  for (int i = 0; i < n; i++) {
    struct body *b = &bodies[i];
    for (int j = i + 1; j < n; j++) {
      struct body *o = &bodies[j];
      double dx = b->x - o->x, dy = b->y - o->y, dz = b->z - o->z;
      double square = dx * dx + dy * dy + dz * dz, magnitude = dt / (square * sqrt(square));
      b->vx -= dx * o->mass * magnitude; b->vy -= dy * o->mass * magnitude; b->vz -= dz * o->mass * magnitude;
      o->vx += dx * b->mass * magnitude; o->vy += dy * b->mass * magnitude; o->vz += dz * b->mass * magnitude;
    }
  }
  for (int i = 0; i < n; i++) {
    struct body *b = &bodies[i];
    b->x += dt * b->vx; b->y += dt * b->vy; b->z += dt * b->vz;
  }
}
int main(void) {
  for (int i = 0; i < 20000; i++) advance(5, 0.001);
  printf("%.9f %.9f\n", bodies[0].x, bodies[1].vy);
  return 0;
}
