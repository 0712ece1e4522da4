#include <stdint.h>
#include <stdio.h>
#include <string.h>
static uint32_t k[64];
static uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }
static void block(uint32_t *state, const unsigned char *p) {
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; i++) w[i] = (uint32_t)p[4*i] << 24 | p[4*i+1] << 16 | p[4*i+2] << 8 | p[4*i+3];
  for (int i = 16; i < 64; i++) {
    uint32_t x = w[i-15], y = w[i-2];
    w[i] = w[i-16] + (rotate(x, 7) ^ rotate(x, 18) ^ x >> 3) + w[i-7] + (rotate(y, 17) ^ rotate(y, 19) ^ y >> 10);
  }
  memcpy(s, state, sizeof s);
  for (int i = 0; i < 64; i++) {
    uint32_t e = s[4], a = s[0];
    uint32_t t1 = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + k[i] + w[i];
    uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 7 * sizeof *s);
    s[4] += t1;
    s[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) state[i] += s[i];
}
int main(void) {
  static unsigned char data[64];
  uint32_t state[8] = {1, 2, 3, 4, 5, 6, 7, 8}, seed = 7;
  for (int i = 0; i < 64; i++) k[i] = seed = seed * 69069 + 1;
  for (int i = 0; i < 4000; i++) { data[i & 63] += i; block(state, data); }
  printf("%08x %08x\n", state[0], state[7]);
  return 0;
}
