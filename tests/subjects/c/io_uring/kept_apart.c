/* Two rings, one of them kept from children (MADV_DONTFORK), its requests mapped for reading only, at close quarters. */
#include "../io_uring.h"
#include <sys/wait.h>

static struct ring one, two;

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    ring_open(&one, 8, 0, 0);
    ring_open(&two, 128, 0, 0);
    MUST(madvise(two.rings, two.rings_size, MADV_DONTFORK));
    MUST(madvise(two.sqes, two.sqes_size, MADV_DONTFORK));
    char *again = MUST_MAP(mmap(NULL, one.rings_size, PROT_READ, MAP_SHARED, one.fd, IORING_OFF_CQ_RING));
    int copy = (int)MUST(dup(one.fd));
    ring_turn(&one, 5, 100);
    ring_turn(&two, 150, 100);
    subject_wait(NULL);
    EXPECT(fcntl(copy, F_GETFD) == 0 && fcntl(one.fd, F_GETFD) == FD_CLOEXEC, "close-on-exec differs");
    int first = one.fd;
    one.fd = copy;
    ring_turn(&one, 5, 200);
    EXPECT(*(unsigned *)(again + one.params.cq_off.tail) == 10, "the second mapping is of another ring");
    one.fd = first;
    ring_turn(&one, 15, 300);
    ring_turn(&two, 150, 300);
    pid_t child = (pid_t)MUST(fork());
    if (!child)
        _exit(msync(one.rings, 4096, MS_ASYNC) != 0 || msync(two.rings, 4096, MS_ASYNC) == 0);
    int status;
    EXPECT(waitpid(child, &status, 0) == child && status == 0, "the child has other memory");
    subject_pass();
}
