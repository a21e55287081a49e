/* Controlling sides of terminals whose other side is not open: it never was, or it was closed with something printed. */
#include "../subject.h"
#include <poll.h>

static short state(int master)
{
    struct pollfd asked = {.fd = master, .events = POLLIN};
    MUST(poll(&asked, 1, 0));
    return asked.revents;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fresh = (int)MUST(posix_openpt(O_RDWR | O_NOCTTY)), left = (int)MUST(posix_openpt(O_RDWR | O_NOCTTY));
    MUST(unlockpt(fresh));
    MUST(unlockpt(left));
    char name[64], text[16] = "";
    MUST0(ptsname_r(left, name, sizeof name));
    int slave = (int)MUST(open(name, O_RDWR | O_NOCTTY));
    MUST(write(slave, "bye", 3));
    close(slave);
    while (state(left) != (POLLIN | POLLHUP))
        subject_tick();
    subject_wait(NULL);
    EXPECT(state(fresh) == 0, "one that was never open is %#x", (unsigned)state(fresh));
    EXPECT(state(left) == (POLLIN | POLLHUP), "one that was closed is %#x", (unsigned)state(left));
    EXPECT(read(left, text, sizeof text) == 3 && memcmp(text, "bye", 3) == 0, "printed: '%.3s'", text);
    EXPECT(read(left, text, sizeof text) == -1 && errno == EIO, "no end");
    subject_pass();
}
