/* A flock(2) lock bears the pid of the process that took it, for all who look into /proc. */
#include "../subject.h"
#include <sys/file.h>

static int owner(int fd)
{
    char path[64], line[200];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    FILE *about = fopen(path, "r");
    EXPECT(about, "%s cannot be read", path);
    int pid = 0;
    while (fgets(line, sizeof line, about))
        if (sscanf(line, "lock: %*d: FLOCK %*s %*s %d", &pid) == 1)
            break;
    fclose(about);
    return pid;
}

static int own_number(void) /* as /proc has it, which may be of another pid namespace */
{
    char text[32] = "";
    MUST(readlink("/proc/self", text, sizeof text - 1));
    return atoi(text);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_EXCL, 0600));
    MUST(flock(fd, LOCK_EX));
    EXPECT(owner(fd) == own_number(), "set-up: %d", owner(fd));
    subject_wait(NULL);
    EXPECT(owner(fd) == own_number(), "it is %d's, and we are %d", owner(fd), own_number());
    int other = (int)MUST(open(subject_path("file"), O_RDWR));
    EXPECT(flock(other, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK, "nobody holds it");
    subject_pass();
}
