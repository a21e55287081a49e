/* A program without a C library: it has neither a `syscall; ret` nor anything to return from signals with. */
/* cc: -nostdlib -static -ffreestanding -fno-stack-protector -fcf-protection=none */

static long make_call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall\n\tnop" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

enum { WRITE = 1, OPEN = 2, CLOSE = 3, ACCESS = 21, NANOSLEEP = 35, EXIT_GROUP = 231 };

static volatile long counted = 41; /* in .data */
static volatile char zeros[3 << 12];

static const char *path(const char *base, const char *suffix)
{
    static char made[4096];
    char *at = made;
    while (*base)
        *at++ = *base++;
    while (*suffix)
        *at++ = *suffix++;
    *at = 0;
    return made;
}

__attribute__((used)) static void run(long *stack)
{
    const char *base = (const char *)stack[2]; /* argc, argv[0], argv[1] */
    long tick[2] = {0, 2000000};
    counted++;
    zeros[5000] = 7;
    make_call(CLOSE, make_call(OPEN, (long)path(base, ".ready"), 1, 0), 0, 0);
    while (make_call(ACCESS, (long)path(base, ".go"), 0, 0))
        make_call(NANOSLEEP, (long)tick, 0, 0);
    long fd = make_call(OPEN, (long)path(base, ".result"), 0101, 0600);
    make_call(WRITE, fd, (long)(counted == 42 && zeros[5000] == 7 && !zeros[9000] ? "PASS\n" : "FAIL\n"), 5);
    make_call(EXIT_GROUP, 0, 0, 0);
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall run\n\thlt\n");
