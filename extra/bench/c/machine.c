#include <stdio.h>
enum { PUSH, ADD, SUB, MUL, LESS, JUMP, BRANCH, GET, SET, PRINT, HALT };
static int run(const int *code) {
  int stack[64], variables[8] = {0}, top = 0, at = 0, steps = 0;
  for (;;) {
    steps++;
    switch (code[at++]) {
      case PUSH: stack[top++] = code[at++]; break;
      case ADD: top--; stack[top - 1] += stack[top]; break;
      case SUB: top--; stack[top - 1] -= stack[top]; break;
      case MUL: top--; stack[top - 1] *= stack[top]; break;
      case LESS: top--; stack[top - 1] = stack[top - 1] < stack[top]; break;
      case JUMP: at = code[at]; break;
      case BRANCH: if (stack[--top]) at++; else at = code[at]; break;
      case GET: stack[top++] = variables[code[at++]]; break;
      case SET: variables[code[at++]] = stack[--top]; break;
      case PRINT: printf("%d\n", stack[--top]); break;
      case HALT: return steps;
    }
  }
}
int main(void) {
  static const int code[] = {GET, 0, PUSH, 200000, LESS, BRANCH, 27, GET, 1, PUSH, 31, MUL, GET, 0, ADD, PUSH, 7, SUB,
                             SET, 1, GET, 0, PUSH, 1, ADD, JUMP, 31, GET, 1, PRINT, HALT, SET, 0, JUMP, 0};
  printf("%d\n", run(code));
  return 0;
}
