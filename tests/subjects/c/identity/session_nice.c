/* How nice a session is towards the other sessions (sched(7), "The autogroup feature"). */
#include "../subject.h"

static int nice_of_session(void)
{
    char line[100] = "", *value;
    FILE *stream = fopen("/proc/self/autogroup", "r");
    if (stream && !fgets(line, sizeof line, stream))
        line[0] = 0;
    if (stream)
        fclose(stream);
    value = strstr(line, "nice ");
    return value ? atoi(value + 5) : -100;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (getsid(0) != getpid())
        MUST(setsid());
    int fd = open("/proc/self/autogroup", O_WRONLY);
    if (fd < 0)
        subject_skip("an OS kernel that groups processes by sessions");
    while (write(fd, "7", 1) != 1) { /* ordinary users may do so ten times a second, all together */
        EXPECT(errno == EAGAIN, "autogroup: %s", strerror(errno));
        subject_tick();
    }
    close(fd);
    EXPECT(nice_of_session() == 7, "it is %d", nice_of_session());
    subject_wait(NULL);
    EXPECT(nice_of_session() == 7, "it became %d", nice_of_session());
    subject_pass();
}
