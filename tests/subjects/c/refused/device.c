/* A device that is more than a source of bytes: refused, with its driver's name. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (open("/dev/net/tun", O_RDWR) < 0 && open("/dev/kmsg", O_RDWR) < 0)
        subject_skip("/dev/net/tun or /dev/kmsg");
    subject_wait(NULL);
    subject_pass();
}
