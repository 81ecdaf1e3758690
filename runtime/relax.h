/* What a loop that waits for another thread does between two looks. */
#ifndef RUNTIME_RELAX_H
#define RUNTIME_RELAX_H

#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ __volatile__("yield")
#else
#define RELAX() ((void)0)
#endif

#endif
