/* A thread that has given up most of its capabilities, in a process that has all of them. */
#include "../subject.h"
#include <linux/capability.h>
#include <pthread.h>
#include <sys/syscall.h>

static volatile pid_t tid;
static struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};

static void *live(void *unused)
{
    struct __user_cap_data_struct few[2] = {{.effective = 1 << CAP_NET_ADMIN, .permitted = 1 << CAP_NET_ADMIN}};
    MUST(syscall(SYS_capset, &header, few));
    tid = gettid();
    for (;;)
        pause();
    return unused;
}

static const char *permitted(pid_t of)
{
    char file[40];
    snprintf(file, sizeof file, "task/%d/status", (int)of);
    return subject_proc(file, "CapPrm:");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char before[64];
    pthread_t thread;
    snprintf(before, sizeof before, "%s", permitted(getpid()));
    MUST0(pthread_create(&thread, NULL, live, NULL));
    while (!tid)
        subject_tick();
    subject_wait(NULL);
    EXPECT(strcmp(permitted(getpid()), before) == 0, "of the process: %s", permitted(getpid()));
    EXPECT(strtoul(permitted(tid), NULL, 16) == 1 << CAP_NET_ADMIN, "of the thread: %s", permitted(tid));
    subject_pass();
}
