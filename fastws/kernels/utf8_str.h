/* From UTF-8 bytes to a Python str: the only file of this folder that knows Python. */
#ifndef FASTWS_UTF8_STR_H
#define FASTWS_UTF8_STR_H

#include <Python.h>

#include "mask.h"
#include "utf8.h"

/* bytes.decode("utf-8", "strict") of n bytes: a new reference, or NULL with UnicodeDecodeError or
   MemoryError set.  Needs the GIL (an attached thread state).

   One look at the bytes gives the length and the widest code point, so that the str is made once,
   in its final kind; the conversion then validates.  If it fails, CPython decodes again to raise
   its error. */
static inline PyObject *fastws_decode_utf8(const uint8_t *p, size_t n)
{
    PyObject *str;
    size_t count;
    uint8_t max;
    int failed;
    if (n < 2)
        goto python; /* CPython shares one object per Latin-1 character */
    if (n < FASTWS_MASK_SMALL) { /* most short text is ASCII: copy and look at once */
        uint8_t copy[FASTWS_MASK_SMALL];
        if (!fastws_copy_ascii(copy, p, n)) {
            str = PyUnicode_New((Py_ssize_t)n, 127);
            if (str != NULL)
                memcpy(PyUnicode_DATA(str), copy, n);
            return str;
        }
    }
    if (n >= FASTWS_MASK_SMALL && !fastws_active_kernel->utf8_vectors)
        goto python;
    fastws_utf8_scan(p, n, &count, &max);
    if (count < 2)
        goto python;
    if (max < 0x80) {
        str = PyUnicode_New((Py_ssize_t)n, 127);
        if (str != NULL)
            memcpy(PyUnicode_DATA(str), p, n);
        return str;
    }
    str = PyUnicode_New((Py_ssize_t)count, max < 0xC4 ? 255 : max < 0xF0 ? 65535 : 0x10FFFF);
    if (str == NULL)
        return NULL;
    if (max < 0xC4)
        failed = fastws_utf8_to_latin1(p, n, PyUnicode_DATA(str), count);
    else if (max < 0xF0)
        failed = fastws_utf8_to_ucs2(p, n, PyUnicode_DATA(str), count);
    else
        failed = fastws_utf8_to_ucs4(p, n, PyUnicode_DATA(str), count);
    if (!failed)
        return str;
    Py_DECREF(str);
python:
    return PyUnicode_DecodeUTF8((const char *)p, (Py_ssize_t)n, "strict");
}

/* The same for masked bytes, which stay as they are (RFC 6455 5.3).  Unmasks straight into the str;
   only text that is not ASCII is looked at twice. */
static inline PyObject *fastws_decode_masked_utf8(const uint8_t *p, size_t n, uint32_t key)
{
    PyObject *text, *str;
    uint8_t *data;
    if (n < 2) {
        uint8_t byte = 0;
        if (n == 1)
            (void)fastws_mask_words(&byte, p, 1, key);
        return PyUnicode_DecodeUTF8((const char *)&byte, (Py_ssize_t)n, "strict");
    }
    str = PyUnicode_New((Py_ssize_t)n, 127);
    if (str == NULL)
        return NULL;
    data = (uint8_t *)PyUnicode_DATA(str);
    if (!fastws_mask_ascii(data, p, n, key))
        return str;
    text = fastws_decode_utf8(data, n); /* `str` served as the buffer for the unmasked bytes */
    Py_DECREF(str);
    return text;
}

#endif
