from big_crop import quiet

quiet.install()
