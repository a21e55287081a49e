/* On which nodes memory is to lie: policies of mappings (one that forks leave out too), and of each thread. */
#include "../subject.h"
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define SIZE 65536
#define NODES 1024

static volatile int going = 1;

static void expect(void *address, int wanted, const char *what)
{
    int mode = -1;
    unsigned long nodes[NODES / 64] = {0};
    MUST(syscall(SYS_get_mempolicy, &mode, nodes, NODES, address, address ? MPOL_F_ADDR : 0));
    EXPECT(mode == wanted, "the policy of %s is %d, not %d", what, mode, wanted);
    EXPECT(nodes[0] == (wanted == MPOL_DEFAULT ? 0 : 1), "the nodes of %s are %lx", what, nodes[0]);
}

static char *map(int flags)
{
    return MUST_MAP(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0));
}

static void *other(void *arg)
{
    unsigned long first = 1;
    MUST(syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, &first, NODES));
    while (going)
        subject_tick();
    expect(NULL, MPOL_INTERLEAVE, "a thread");
    return arg;
}

static void *plain(void *arg)
{
    MUST(syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0));
    while (going)
        subject_tick();
    expect(NULL, MPOL_DEFAULT, "a thread without one");
    return arg;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    unsigned long first = 1;
    if (syscall(SYS_set_mempolicy, MPOL_PREFERRED, &first, NODES) != 0)
        subject_skip("this OS kernel knows of no nodes");
    char *private = map(MAP_PRIVATE), *shared = map(MAP_SHARED), *not_forked = map(MAP_PRIVATE);
    MUST(syscall(SYS_mbind, private, SIZE / 2, MPOL_BIND, &first, NODES, 0));
    MUST(syscall(SYS_mbind, shared, SIZE, MPOL_INTERLEAVE, &first, NODES, 0));
    MUST(syscall(SYS_mbind, not_forked, SIZE, MPOL_BIND, &first, NODES, 0));
    MUST(madvise(not_forked, SIZE, MADV_DONTFORK));
    subject_fill(private, SIZE, 1);
    subject_fill(shared, SIZE, 2);
    subject_fill(not_forked, SIZE, 3);
    pthread_t threads[2];
    MUST0(pthread_create(&threads[0], NULL, other, NULL));
    MUST0(pthread_create(&threads[1], NULL, plain, NULL));
    subject_all_asleep(2);
    subject_wait(NULL);

    going = 0;
    for (int i = 0; i < 2; i++)
        MUST0(pthread_join(threads[i], NULL));
    expect(NULL, MPOL_PREFERRED, "the process");
    expect(private, MPOL_BIND, "private memory");
    expect(private + SIZE / 2, MPOL_DEFAULT, "its other half");
    expect(shared, MPOL_INTERLEAVE, "shared memory");
    expect(not_forked, MPOL_BIND, "memory that is not forked");
    EXPECT_FILLED(private, SIZE, 1, "private memory");
    EXPECT_FILLED(shared, SIZE, 2, "shared memory");
    EXPECT_FILLED(not_forked, SIZE, 3, "memory that is not forked");
    subject_pass();
}
