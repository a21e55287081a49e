/* A ring that a process and its child use in turn; another child has only the memory, a third nothing but the descriptor. */
#include "../io_uring.h"
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

static struct ring ring;

static void at_word(int from, unsigned count, uint64_t first, int to)
{
    char word;
    EXPECT(read(from, &word, 1) == 1, "no word came");
    ring_turn(&ring, count, first);
    MUST(write(to, "b", 1));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int down[2], up[2], seen[2], end[2];
    MUST(pipe(down)), MUST(pipe(up)), MUST(pipe(seen)), MUST(pipe(end));
    ring_open(&ring, 8, 0, 0);
    ring_turn(&ring, 11, 100);
    char word;
    bool same_table = argc > 2; /* of descriptors */
    pid_t user = (pid_t)MUST(same_table ? syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0) : fork());
    if (!user) {
        ring_turn(&ring, 3, 200);
        MUST(write(up[1], "a", 1));
        at_word(down[0], 21, 300, up[1]);
        _exit(0);
    }
    EXPECT(read(up[0], &word, 1) == 1, "the child did not begin");
    pid_t watcher = (pid_t)MUST(fork());
    if (!watcher) {
        close(ring.fd);
        close(end[1]);
        MUST(read(end[0], &word, 1));
        MUST(write(seen[1], ring.cq_tail, sizeof *ring.cq_tail));
        _exit(0);
    }
    pid_t holder = (pid_t)MUST(fork());
    if (!holder) {
        munmap(ring.rings, ring.rings_size);
        munmap(ring.sqes, ring.sqes_size);
        close(end[1]);
        MUST(read(end[0], &word, 1));
        _exit(fcntl(ring.fd, F_GETFD) != FD_CLOEXEC);
    }
    subject_wait(NULL);
    ring_turn(&ring, 5, 400);
    MUST(write(down[1], "c", 1));
    EXPECT(read(up[0], &word, 1) == 1, "the child did not go on");
    ring_turn(&ring, 5, 500);
    unsigned tail = 0;
    MUST(close(end[1]));
    EXPECT(read(seen[0], &tail, sizeof tail) == sizeof tail && tail == 45, "another child saw %u", tail);
    int status;
    for (int i = 0; i < 3; i++)
        EXPECT(wait(&status) > 0 && status == 0, "a child ended with %d", status);
    subject_pass();
}
