/* A ring that one thread alone may use, which is not the first, and which completes nothing until it is asked to. */
#include "../io_uring.h"
#include <pthread.h>

static struct ring ring;
static pthread_barrier_t barrier;

static void *use(void *flags)
{
    ring_open(&ring, 8, 0, (unsigned)(uintptr_t)flags);
    ring_turn(&ring, 21, 100);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    ring_turn(&ring, 21, 200);
    ring_prepare(&ring, 300)->flags = IOSQE_ASYNC;
    ring_enter(&ring, 1, 1);
    ring_reap(&ring, 300);
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t thread;
    unsigned flags = IORING_SETUP_SINGLE_ISSUER | (argc > 2 ? IORING_SETUP_DEFER_TASKRUN : 0);
    MUST0(pthread_barrier_init(&barrier, NULL, 2));
    MUST0(pthread_create(&thread, NULL, use, (void *)(uintptr_t)flags));
    pthread_barrier_wait(&barrier);
    subject_wait(NULL);
    long other = syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_PROBE, NULL, 0);
    EXPECT(other == -1 && errno == EEXIST, "another thread may use it, too (%s)", strerror(errno));
    pthread_barrier_wait(&barrier);
    MUST0(pthread_join(thread, NULL));
    ring_empty(&ring);
    subject_pass();
}
