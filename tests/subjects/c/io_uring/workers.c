/* Workers of the OS kernel's among the threads of a process: they are none of the program's. */
#include "../io_uring.h"
#include <pthread.h>

static struct ring ring;
static pthread_barrier_t barrier;
static int results[2];

static void by_worker(uint64_t number)
{
    struct io_uring_sqe *sqe = ring_prepare(&ring, number);
    sqe->flags = IOSQE_ASYNC;
    ring_enter(&ring, 1, 1);
    EXPECT(ring_reap(&ring, number) == 0, "request %lu failed", (long)number);
}

static int workers(void)
{
    int found = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *task; (task = readdir(tasks));) {
        char path[300], name[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
        FILE *comm = task->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (!comm)
            continue;
        found += fgets(name, sizeof name, comm) && !strncmp(name, "iou-wrk-", 8);
        fclose(comm);
    }
    closedir(tasks);
    return found;
}

static void *wait_beside(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&barrier);
    results[0] = 7;
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t thread;
    MUST0(pthread_barrier_init(&barrier, NULL, 2));
    MUST0(pthread_create(&thread, NULL, wait_beside, NULL));
    ring_open(&ring, 8, 0, 0);
    by_worker(1);
    EXPECT(workers() > 0, "there is no worker");
    subject_wait(NULL);
    by_worker(2);
    pthread_barrier_wait(&barrier);
    MUST0(pthread_join(thread, NULL));
    EXPECT(results[0] == 7, "the thread did not go on");
    subject_pass();
}
