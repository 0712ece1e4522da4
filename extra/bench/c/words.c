#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct entry { struct entry *next; char *key; int count; };
static struct entry *table[4096];
static unsigned hash(const char *s) {
  unsigned h = 5381;
  while (*s) h = h * 33 ^ (unsigned char)*s++;
  return h;
}
static struct entry *find(const char *key) {
  struct entry **slot = &table[hash(key) % 4096];
  for (struct entry *e = *slot; e; e = e->next) if (strcmp(e->key, key) == 0) return e;
  struct entry *e = malloc(sizeof *e);
  e->next = *slot; e->key = strcpy(malloc(strlen(key) + 1), key); e->count = 0;
  return *slot = e;
}
int main(void) {
  unsigned seed = 3;
  char word[16];
  long total = 0;
  for (int i = 0; i < 100000; i++) {
    int n = 0;
    seed = seed * 1103515245 + 12345;
    for (unsigned x = (seed >> 16) % 5000 + 1; x; x /= 26) word[n++] = 'a' + x % 26;
    word[n] = 0;
    find(word)->count++;
  }
  for (int i = 0; i < 4096; i++) for (struct entry *e = table[i]; e; e = e->next) total += e->count * e->key[0];
  printf("%ld\n", total);
  return 0;
}
