/* A ring that two threads use by numbers of their own (IORING_REGISTER_RING_FDS). */
#include "../io_uring.h"
#include <pthread.h>

static struct ring ring;
static pthread_barrier_t barrier;

static void enter_by_number(unsigned number, uint64_t request)
{
    unsigned flags = IORING_ENTER_GETEVENTS | IORING_ENTER_REGISTERED_RING;
    ring_prepare(&ring, request);
    EXPECT(MUST(syscall(SYS_io_uring_enter, number, 1, 1, flags, NULL, 0)) == 1, "no request was taken");
    ring_reap(&ring, request);
}

static void give_number(unsigned number)
{
    struct io_uring_rsrc_update update = {.offset = number, .data = (unsigned)ring.fd};
    MUST(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_RING_FDS, &update, 1));
    enter_by_number(number, 100);
}

static void *use_five(void *unused)
{
    (void)unused;
    give_number(5);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    enter_by_number(5, 200);
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t thread;
    ring_open(&ring, 8, 0, 0);
    give_number(0);
    MUST0(pthread_barrier_init(&barrier, NULL, 2));
    MUST0(pthread_create(&thread, NULL, use_five, NULL));
    pthread_barrier_wait(&barrier);
    if (argc > 2) /* which one has the numbers nobody could tell */
        ring_open(&(struct ring){0}, 8, 0, 0);
    subject_wait(NULL);
    enter_by_number(0, 300);
    pthread_barrier_wait(&barrier);
    MUST0(pthread_join(thread, NULL));
    long other = syscall(SYS_io_uring_enter, 5, 0, 0, IORING_ENTER_REGISTERED_RING, NULL, 0);
    EXPECT(other == -1 && errno == EBADF, "the other thread's number is the process's");
    ring_empty(&ring);
    subject_pass();
}
