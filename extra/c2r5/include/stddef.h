#ifndef __need_wint_t
#ifndef _STDDEF_H
#define _STDDEF_H
#endif
#endif
#ifndef __c2r5_stddef
#define __c2r5_stddef
typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;
typedef __WCHAR_TYPE__ wchar_t;
typedef struct { long long __a; long double __b; } max_align_t;
#define NULL ((void *)0)
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif
#if defined __need_wint_t && !defined __c2r5_wint
#define __c2r5_wint
typedef __WINT_TYPE__ wint_t;
#endif
#undef __need_size_t
#undef __need_wchar_t
#undef __need_ptrdiff_t
#undef __need_NULL
#undef __need_wint_t
#ifndef NULL
#define NULL ((void *)0)
#endif
