/* Working folder, and umask. */
#include "../subject.h"

static void spoil(void) { chdir("/") ? (void)0 : (void)umask(0); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char before[PATH_MAX], after[PATH_MAX];
    MUST(mkdir(subject_path("folder"), 0700));
    MUST(chdir(subject_path("folder")));
    EXPECT(getcwd(before, sizeof before), "getcwd");
    umask(0123);
    subject_wait(spoil);
    EXPECT(getcwd(after, sizeof after) && !strcmp(before, after), "the folder is %s", after);
    close((int)MUST(open("file", O_CREAT | O_WRONLY, 0777)));
    struct stat st;
    MUST(stat("file", &st));
    EXPECT((st.st_mode & 0777) == 0654, "a new file gets %o", st.st_mode & 0777);
    EXPECT(umask(0) == 0123, "the umask changed");
    subject_pass();
}
