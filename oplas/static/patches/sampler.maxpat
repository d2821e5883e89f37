{
 "patcher": {
  "fileversion": 1,
  "appversion": {
   "major": 8,
   "minor": 5,
   "revision": 0,
   "architecture": "x64",
   "modernui": 1
  },
  "classnamespace": "box",
  "rect": [
   60.0,
   60.0,
   860.0,
   540.0
  ],
  "default_fontsize": 12.0,
  "boxes": [
   {
    "box": {
     "id": "title",
     "maxclass": "comment",
     "numinlets": 1,
     "numoutlets": 0,
     "outlettype": [],
     "patching_rect": [
      20.0,
      14.0,
      420.0,
      20.0
     ],
     "text": "oplas: play the sampler at any point of its space"
    }
   },
   {
    "box": {
     "id": "say1",
     "maxclass": "comment",
     "numinlets": 1,
     "numoutlets": 0,
     "outlettype": [],
     "patching_rect": [
      20.0,
      36.0,
      420.0,
      20.0
     ],
     "text": "Put sampler.ts (from export_nn_tilde) beside this patch, then switch sound on."
    }
   },
   {
    "box": {
     "id": "pad0-name",
     "maxclass": "comment",
     "numinlets": 1,
     "numoutlets": 0,
     "outlettype": [],
     "patching_rect": [
      20.0,
      66.0,
      160.0,
      20.0
     ],
     "text": "z1 across, z2 up"
    }
   },
   {
    "box": {
     "id": "pad0",
     "maxclass": "pictslider",
     "numinlets": 2,
     "numoutlets": 2,
     "outlettype": [
      "int",
      "int"
     ],
     "patching_rect": [
      20.0,
      90.0,
      140.0,
      140.0
     ]
    }
   },
   {
    "box": {
     "id": "scale0",
     "maxclass": "newobj",
     "numinlets": 6,
     "numoutlets": 1,
     "outlettype": [
      ""
     ],
     "patching_rect": [
      20.0,
      250.0,
      76.0,
      22.0
     ],
     "text": "scale 0 127 -2. 2."
    }
   },
   {
    "box": {
     "id": "sig0",
     "maxclass": "newobj",
     "numinlets": 1,
     "numoutlets": 1,
     "outlettype": [
      "signal"
     ],
     "patching_rect": [
      20.0,
      290.0,
      60.0,
      22.0
     ],
     "text": "sig~"
    }
   },
   {
    "box": {
     "id": "scale1",
     "maxclass": "newobj",
     "numinlets": 6,
     "numoutlets": 1,
     "outlettype": [
      ""
     ],
     "patching_rect": [
      100.0,
      250.0,
      76.0,
      22.0
     ],
     "text": "scale 0 127 -2. 2."
    }
   },
   {
    "box": {
     "id": "sig1",
     "maxclass": "newobj",
     "numinlets": 1,
     "numoutlets": 1,
     "outlettype": [
      "signal"
     ],
     "patching_rect": [
      100.0,
      290.0,
      60.0,
      22.0
     ],
     "text": "sig~"
    }
   },
   {
    "box": {
     "id": "pad1-name",
     "maxclass": "comment",
     "numinlets": 1,
     "numoutlets": 0,
     "outlettype": [],
     "patching_rect": [
      190.0,
      66.0,
      160.0,
      20.0
     ],
     "text": "z3 across, z4 up"
    }
   },
   {
    "box": {
     "id": "pad1",
     "maxclass": "pictslider",
     "numinlets": 2,
     "numoutlets": 2,
     "outlettype": [
      "int",
      "int"
     ],
     "patching_rect": [
      190.0,
      90.0,
      140.0,
      140.0
     ]
    }
   },
   {
    "box": {
     "id": "scale2",
     "maxclass": "newobj",
     "numinlets": 6,
     "numoutlets": 1,
     "outlettype": [
      ""
     ],
     "patching_rect": [
      190.0,
      250.0,
      76.0,
      22.0
     ],
     "text": "scale 0 127 -2. 2."
    }
   },
   {
    "box": {
     "id": "sig2",
     "maxclass": "newobj",
     "numinlets": 1,
     "numoutlets": 1,
     "outlettype": [
      "signal"
     ],
     "patching_rect": [
      190.0,
      290.0,
      60.0,
      22.0
     ],
     "text": "sig~"
    }
   },
   {
    "box": {
     "id": "scale3",
     "maxclass": "newobj",
     "numinlets": 6,
     "numoutlets": 1,
     "outlettype": [
      ""
     ],
     "patching_rect": [
      270.0,
      250.0,
      76.0,
      22.0
     ],
     "text": "scale 0 127 -2. 2."
    }
   },
   {
    "box": {
     "id": "sig3",
     "maxclass": "newobj",
     "numinlets": 1,
     "numoutlets": 1,
     "outlettype": [
      "signal"
     ],
     "patching_rect": [
      270.0,
      290.0,
      60.0,
      22.0
     ],
     "text": "sig~"
    }
   },
   {
    "box": {
     "id": "keys",
     "maxclass": "kslider",
     "numinlets": 2,
     "numoutlets": 2,
     "outlettype": [
      "int",
      "int"
     ],
     "patching_rect": [
      380.0,
      90.0,
      336.0,
      53.0
     ],
     "offset": 48,
     "range": 36,
     "mode": 1
    }
   },
   {
    "box": {
     "id": "midi",
     "maxclass": "newobj",
     "numinlets": 1,
     "numoutlets": 3,
     "outlettype": [
      "int",
      "int",
      "int"
     ],
     "patching_rect": [
      380.0,
      170.0,
      60.0,
      22.0
     ],
     "text": "notein"
    }
   },
   {
    "box": {
     "id": "loud",
     "maxclass": "newobj",
     "numinlets": 2,
     "numoutlets": 1,
     "outlettype": [
      "float"
     ],
     "patching_rect": [
      480.0,
      220.0,
      60.0,
      22.0
     ],
     "text": "/ 127."
    }
   },
   {
    "box": {
     "id": "note",
     "maxclass": "newobj",
     "numinlets": 1,
     "numoutlets": 1,
     "outlettype": [
      "signal"
     ],
     "patching_rect": [
      380.0,
      290.0,
      60.0,
      22.0
     ],
     "text": "sig~"
    }
   },
   {
    "box": {
     "id": "gate",
     "maxclass": "newobj",
     "numinlets": 1,
     "numoutlets": 1,
     "outlettype": [
      "signal"
     ],
     "patching_rect": [
      480.0,
      290.0,
      60.0,
      22.0
     ],
     "text": "sig~"
    }
   },
   {
    "box": {
     "id": "message0",
     "maxclass": "message",
     "numinlets": 2,
     "numoutlets": 1,
     "outlettype": [
      ""
     ],
     "patching_rect": [
      580.0,
      200.0,
      150.0,
      22.0
     ],
     "text": "set play 60 0. 0. 0. 0."
    }
   },
   {
    "box": {
     "id": "message1",
     "maxclass": "message",
     "numinlets": 2,
     "numoutlets": 1,
     "outlettype": [
      ""
     ],
     "patching_rect": [
      580.0,
      230.0,
      150.0,
      22.0
     ],
     "text": "set voices 1"
    }
   },
   {
    "box": {
     "id": "message2",
     "maxclass": "message",
     "numinlets": 2,
     "numoutlets": 1,
     "outlettype": [
      ""
     ],
     "patching_rect": [
      580.0,
      260.0,
      150.0,
      22.0
     ],
     "text": "set voices 4"
    }
   },
   {
    "box": {
     "id": "message3",
     "maxclass": "message",
     "numinlets": 2,
     "numoutlets": 1,
     "outlettype": [
      ""
     ],
     "patching_rect": [
      580.0,
      290.0,
      150.0,
      22.0
     ],
     "text": "reload"
    }
   },
   {
    "box": {
     "id": "nn",
     "maxclass": "newobj",
     "numinlets": 6,
     "numoutlets": 1,
     "outlettype": [
      "signal"
     ],
     "patching_rect": [
      20.0,
      350.0,
      260.0,
      22.0
     ],
     "text": "nn~ sampler.ts forward 0"
    }
   },
   {
    "box": {
     "id": "half",
     "maxclass": "newobj",
     "numinlets": 2,
     "numoutlets": 1,
     "outlettype": [
      "signal"
     ],
     "patching_rect": [
      20.0,
      390.0,
      60.0,
      22.0
     ],
     "text": "*~ 0.5"
    }
   },
   {
    "box": {
     "id": "dac",
     "maxclass": "ezdac~",
     "numinlets": 2,
     "numoutlets": 0,
     "outlettype": [],
     "patching_rect": [
      20.0,
      430.0,
      45.0,
      45.0
     ]
    }
   },
   {
    "box": {
     "id": "say2",
     "maxclass": "comment",
     "numinlets": 1,
     "numoutlets": 0,
     "outlettype": [],
     "patching_rect": [
      300.0,
      350.0,
      520.0,
      20.0
     ],
     "text": "The last argument is the block: 0 computes 64 samples at a time in the audio thread."
    }
   },
   {
    "box": {
     "id": "say3",
     "maxclass": "comment",
     "numinlets": 1,
     "numoutlets": 0,
     "outlettype": [],
     "patching_rect": [
      300.0,
      390.0,
      520.0,
      20.0
     ],
     "text": "A signal vector of 64, and an I/O vector of 512 or more, let a note begin without a dropout."
    }
   }
  ],
  "lines": [
   {
    "patchline": {
     "source": [
      "pad0",
      0
     ],
     "destination": [
      "scale0",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "scale0",
      0
     ],
     "destination": [
      "sig0",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "sig0",
      0
     ],
     "destination": [
      "nn",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "pad0",
      1
     ],
     "destination": [
      "scale1",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "scale1",
      0
     ],
     "destination": [
      "sig1",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "sig1",
      0
     ],
     "destination": [
      "nn",
      1
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "pad1",
      0
     ],
     "destination": [
      "scale2",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "scale2",
      0
     ],
     "destination": [
      "sig2",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "sig2",
      0
     ],
     "destination": [
      "nn",
      2
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "pad1",
      1
     ],
     "destination": [
      "scale3",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "scale3",
      0
     ],
     "destination": [
      "sig3",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "sig3",
      0
     ],
     "destination": [
      "nn",
      3
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "keys",
      0
     ],
     "destination": [
      "note",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "keys",
      1
     ],
     "destination": [
      "loud",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "midi",
      0
     ],
     "destination": [
      "note",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "midi",
      1
     ],
     "destination": [
      "loud",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "loud",
      0
     ],
     "destination": [
      "gate",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "note",
      0
     ],
     "destination": [
      "nn",
      4
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "gate",
      0
     ],
     "destination": [
      "nn",
      5
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "message0",
      0
     ],
     "destination": [
      "nn",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "message1",
      0
     ],
     "destination": [
      "nn",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "message2",
      0
     ],
     "destination": [
      "nn",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "message3",
      0
     ],
     "destination": [
      "nn",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "nn",
      0
     ],
     "destination": [
      "half",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "half",
      0
     ],
     "destination": [
      "dac",
      0
     ]
    }
   },
   {
    "patchline": {
     "source": [
      "half",
      0
     ],
     "destination": [
      "dac",
      1
     ]
    }
   }
  ]
 }
}
