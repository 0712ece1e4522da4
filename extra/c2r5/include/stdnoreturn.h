#ifndef noreturn
#define noreturn _Noreturn
#endif
