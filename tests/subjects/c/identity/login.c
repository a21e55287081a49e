/* As whom somebody has logged in, for the audit log (/proc/PID/loginuid): also of a thread and of a child. */
#include "../subject.h"
#include <pthread.h>
#include <sys/wait.h>

static long login(const char *of)
{
    char path[100], text[20] = "";
    snprintf(path, sizeof path, "/proc/%s/loginuid", of);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        subject_skip("the audit log of the OS kernel");
    ssize_t size = read(fd, text, 19);
    close(fd);
    return size > 0 ? atol(text) : -1;
}

static void set(long user)
{
    char text[20];
    int fd = (int)MUST(open("/proc/self/loginuid", O_WRONLY));
    int size = snprintf(text, sizeof text, "%ld", user);
    if (write(fd, text, (size_t)size) < 0) /* somebody has logged in already, and we may not change it */
        close(fd);
}

static void *of_thread(void *gate)
{
    pthread_mutex_lock(gate);
    return (void *)login("thread-self");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_t thread;
    int go[2], status;
    void *threads;
    login("self");
    MUST(pipe(go));
    set(getuid());
    pid_t child = (pid_t)MUST(fork());
    if (child == 0) {
        char byte;
        long before = login("self");
        close(go[1]);
        _exit(read(go[0], &byte, 1) == 1 && login("self") == before ? 77 : 1);
    }
    long mine = login("self");
    pthread_mutex_lock(&gate);
    MUST0(pthread_create(&thread, NULL, of_thread, &gate));
    subject_all_asleep(1);
    subject_wait(NULL);
    EXPECT(login("self") == mine, "it is %ld instead of %ld", login("self"), mine);
    pthread_mutex_unlock(&gate);
    MUST0(pthread_join(thread, &threads));
    EXPECT((long)threads == mine, "the thread's is %ld", (long)threads);
    MUST(write(go[1], "", 1));
    MUST(wait(&status));
    EXPECT(WEXITSTATUS(status) == 77, "the child's is another");
    subject_pass();
}
