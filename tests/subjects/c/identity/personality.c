/* The personality: addresses not randomised. */
#include "../subject.h"
#include <sys/personality.h>

static void spoil(void) { personality(0); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(personality(ADDR_NO_RANDOMIZE | UNAME26));
    subject_wait(spoil);
    int now = personality(0xffffffff);
    EXPECT(now == (ADDR_NO_RANDOMIZE | UNAME26), "personality %#x", now);
    subject_pass();
}
