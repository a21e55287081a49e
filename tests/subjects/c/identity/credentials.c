/* User, group and supplementary groups, real, effective, saved and of the file system (privileged to set up). */
#include "../subject.h"
#include <grp.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const gid_t groups[] = {4001, 4002, 4077};
    if (setgroups(3, groups))
        subject_skip("CAP_SETGID");
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", subject_base);
    *strrchr(folder, '/') = 0;
    MUST(chmod(folder, 0777)); /* for the result */
    MUST(chmod(subject_path("ready"), 0666));
    MUST(chmod(subject_path("spoiled"), 0666));
    MUST(setresgid(3001, 3002, 3003));
    MUST(setresuid(2001, 2002, 2003));
    MUST(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    subject_wait(NULL);
    uid_t uids[3];
    gid_t gids[3], list[10];
    MUST(getresuid(&uids[0], &uids[1], &uids[2]));
    MUST(getresgid(&gids[0], &gids[1], &gids[2]));
    for (unsigned i = 0; i < 3; i++) {
        EXPECT(uids[i] == 2001 + i, "user %u is %u", i, uids[i]);
        EXPECT(gids[i] == 3001 + i, "group %u is %u", i, gids[i]);
    }
    EXPECT(getgroups(10, list) == 3 && !memcmp(list, groups, sizeof groups), "the groups differ");
    EXPECT(setfsuid((uid_t)-1) == 2002, "the file system's user is %d", setfsuid((uid_t)-1));
    EXPECT(strstr(subject_proc("status", "CapEff:"), "0000000000000000"), "capabilities came back");
    subject_pass();
}
