/* libFuzzer with Python inside: hands every input to ``run(data)`` of a Python module.
 *
 *     FASTWS_FUZZ_TARGET=codec fuzz-harness -runs=100000 corpus/codec
 *
 * The interpreter starts once and stays. The extension modules under test are compiled with the same sanitizers
 * (setup.py, FASTWS_SANITIZE) and report their coverage to the libFuzzer in this program; that is all that Python
 * has to know. An exception that leaves ``run`` is a finding, like a report of a sanitizer.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static PyObject *run;

static void give_up(void)
{
    PyErr_Print();
    abort();
}

static void check(PyStatus status)
{
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *target = getenv("FASTWS_FUZZ_TARGET");
    const char *python = getenv("FASTWS_FUZZ_PYTHON"); /* the interpreter whose packages are to be found */
    char name[128];
    PyConfig config;
    PyObject *module;
    (void) argc;
    (void) argv;
    if (target == NULL || python == NULL) {
        fputs("run me by python -m fuzz, or set FASTWS_FUZZ_TARGET and FASTWS_FUZZ_PYTHON\n", stderr);
        exit(2);
    }
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0; /* libFuzzer has its own */
    config.parse_argv = 0;
    check(PyConfig_SetBytesString(&config, &config.program_name, python));
    check(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    snprintf(name, sizeof name, "fuzz.targets.%s", target);
    module = PyImport_ImportModule(name);
    if (module == NULL || (run = PyObject_GetAttrString(module, "run")) == NULL)
        give_up();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    PyObject *input = PyBytes_FromStringAndSize((const char *) data, (Py_ssize_t) size);
    PyObject *result = input == NULL ? NULL : PyObject_CallOneArg(run, input);
    if (result == NULL)
        give_up();
    Py_DECREF(result);
    Py_DECREF(input);
    return 0;
}
