/* PR_SET_NO_NEW_PRIVS, which nobody can take back: set before, set afterwards. */
#include "../subject.h"
#include <sys/prctl.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    subject_wait(NULL);
    EXPECT(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, "it is gone");
    subject_pass();
}
