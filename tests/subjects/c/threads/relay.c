/*
 * Threads that each live for a moment, make the next one and end: whoever lists them finds those that are gone already.
 * None of these chains may be torn, and none doubled.
 */
#include "../subject.h"
#include <pthread.h>

enum { CHAINS = 6 };

static volatile long links[CHAINS];
static volatile int torn, ended;
static volatile bool end;

static void *link_of_chain(void *argument)
{
    long chain = (long)argument;
    pthread_t next;
    if (__atomic_add_fetch(&links[chain], 1, __ATOMIC_SEQ_CST) < 0 || end)
        __atomic_add_fetch(&ended, 1, __ATOMIC_SEQ_CST);
    else if (pthread_create(&next, NULL, link_of_chain, argument) || pthread_detach(next))
        __atomic_add_fetch(&torn, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    for (long chain = 0; chain < CHAINS; chain++) {
        pthread_t first;
        MUST0(pthread_create(&first, NULL, link_of_chain, (void *)chain));
        MUST0(pthread_detach(first));
    }
    subject_wait(NULL);
    for (int chain = 0; chain < CHAINS; chain++) {
        long before = links[chain];
        for (int i = 0; i < 2000 && links[chain] < before + 3; i++)
            subject_tick();
        EXPECT(links[chain] >= before + 3, "chain %d is at its end", chain);
    }
    end = true;
    for (int i = 0; i < 2000 && ended < CHAINS; i++)
        subject_tick();
    EXPECT(ended == CHAINS && !torn, "%d of %d chains came to their end, %d tore", ended, CHAINS, torn);
    subject_pass();
}
