/* The main thread is in a coroutine whose stack is a small one, in the midst of data. */
#include "../subject.h"
#include <ucontext.h>

enum { STACK = 8192, AROUND = 65536 };

static unsigned char memory[2 * AROUND + STACK] __attribute__((aligned(4096)));
static ucontext_t outside, inside;

static unsigned char at(int i)
{
    return (unsigned char)(i * 37 + i / 251);
}

static void coroutine(void)
{
    subject_wait(NULL);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    for (int i = 0; i < (int)sizeof memory; i++)
        memory[i] = at(i);
    MUST(getcontext(&inside));
    inside.uc_stack = (stack_t){.ss_sp = memory + AROUND, .ss_size = STACK};
    inside.uc_link = &outside;
    makecontext(&inside, coroutine, 0);
    MUST(swapcontext(&outside, &inside));
    for (int i = 0; i < (int)sizeof memory; i++)
        EXPECT(i / STACK == AROUND / STACK || memory[i] == at(i), "byte %d is %d, was %d", i, memory[i], at(i));
    subject_pass();
}
