/* A trigger for pressure on memory (PSI), which nobody can read back: refused by name. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const char trigger[] = "some 500000 2000000";
    int fd = open("/proc/pressure/memory", O_RDWR | O_NONBLOCK);
    if (fd < 0 || write(fd, trigger, sizeof trigger) < 0)
        subject_skip("pressure information");
    subject_wait(NULL);
    subject_pass();
}
