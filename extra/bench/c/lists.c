#include <stdio.h>
#include <stdlib.h>
typedef struct node { struct node *left, *right; long key; } Node;
static Node *insert(Node *root, long key) {
  if (!root) { Node *n = malloc(sizeof *n); n->left = n->right = 0; n->key = key; return n; }
  if (key < root->key) root->left = insert(root->left, key);
  else if (key > root->key) root->right = insert(root->right, key);
  return root;
}
static int depth(const Node *n) {
  if (!n) return 0;
  int l = depth(n->left), r = depth(n->right);
  return 1 + (l > r ? l : r);
}
static long sum(const Node *n) { return n ? sum(n->left) + n->key + sum(n->right) : 0; }
static Node *reverse(Node *n) {
  Node *out = 0;
  while (n) { Node *next = n->right; n->right = out; out = n; n = next; }
  return out;
}
int main(void) {
  Node *root = 0, *list = 0;
  unsigned long seed = 11;
  for (int i = 0; i < 20000; i++) { seed = seed * 6364136223846793005ul + 1; root = insert(root, seed >> 40); }
  for (int i = 0; i < 1000; i++) { Node *n = malloc(sizeof *n); n->key = i; n->right = list; list = n; }
  for (int i = 0; i < 301; i++) list = reverse(list);
  printf("%d %ld %ld\n", depth(root), sum(root), list->key);
  return 0;
}
