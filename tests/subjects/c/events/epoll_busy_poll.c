/* An epoll that asks network devices for news (EPIOCSPARAMS, since OS kernel 6.9), and one that does not. */
#include "../subject.h"
#include <sys/epoll.h>
#include <sys/ioctl.h>

struct params {
    uint32_t usecs;
    uint16_t budget;
    uint8_t prefer, zero;
};
#define SET_PARAMS _IOW(0x8A, 0x01, struct params)
#define GET_PARAMS _IOR(0x8A, 0x02, struct params)

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int polls = (int)MUST(epoll_create1(0)), waits = (int)MUST(epoll_create1(0));
    struct params wanted = {.usecs = 50, .budget = 8, .prefer = 1}, found;
    if (ioctl(polls, SET_PARAMS, &wanted) != 0)
        subject_skip("this OS kernel has no such parameters");
    subject_wait(NULL);
    MUST(ioctl(polls, GET_PARAMS, &found));
    EXPECT(found.usecs == 50 && found.budget == 8 && found.prefer == 1, "%u us, %u packets, %u", found.usecs,
           found.budget, found.prefer);
    MUST(ioctl(waits, GET_PARAMS, &found));
    EXPECT(!found.usecs && !found.budget && !found.prefer, "the other one polls too");
    subject_pass();
}
